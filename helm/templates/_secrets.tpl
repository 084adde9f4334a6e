{{/* The sources of the one volume under /run/secrets/taskgate; empty where there are none. */}}
{{- define "taskgate.secretSources" -}}
{{- $sources := list -}}
{{- range $name, $secret := .Values.secrets.apps -}}
{{- $sources = append $sources (include "taskgate.secretSource" (dict "secret" $secret "path" (printf "apps/%s" $name)) | fromYaml) -}}
{{- end -}}
{{- with .Values.secrets.redisPassword -}}
{{- $sources = append $sources (include "taskgate.secretSource" (dict "secret" . "path" "redis-password") | fromYaml) -}}
{{- end -}}
{{- with .Values.secrets.sentinelPassword -}}
{{- $sources = append $sources (include "taskgate.secretSource" (dict "secret" . "path" "sentinel-password") | fromYaml) -}}
{{- end -}}
{{- if .Values.rbac.issuerDiscovery -}}
{{- $token := dict "path" "cluster/token" "expirationSeconds" 3600 -}}
{{- $ca := dict "name" "kube-root-ca.crt" "items" (list (dict "key" "ca.crt" "path" "cluster/ca.crt")) -}}
{{- $sources = concat $sources (list (dict "serviceAccountToken" $token) (dict "configMap" $ca)) -}}
{{- end -}}
{{- if $sources -}}{{- toYaml $sources -}}{{- end -}}
{{- end -}}

{{- define "taskgate.secretSource" -}}
secret:
  name: {{ .secret.name }}
  items:
    - key: {{ .secret.key | quote }}
      path: {{ .path | quote }}
{{- end -}}
