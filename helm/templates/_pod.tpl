{{/* The gateway's pod, with `podSpec` merged into it: objects are merged, lists are replaced. */}}
{{- define "taskgate.podSpec" -}}
{{- $spec := include "taskgate.podOfGateway" . | fromYaml -}}
{{- with $spec.Error -}}{{- fail . -}}{{- end -}}
{{- toYaml (mergeOverwrite $spec (deepCopy .Values.podSpec)) -}}
{{- end -}}

{{- define "taskgate.podOfGateway" -}}
serviceAccountName: {{ include "taskgate.serviceAccount" . }}
terminationGracePeriodSeconds: {{ include "taskgate.gracePeriod" . }}
{{ include "taskgate.podSettings" . }}
{{- with .Values.initContainers }}
initContainers:
  {{- toYaml . | nindent 2 }}
{{- end }}
containers:
  - name: gateway
    {{- include "taskgate.container" . | nindent 4 }}
    ports:
      - name: http
        containerPort: {{ include "taskgate.port" . }}
        protocol: TCP
      {{- if include "taskgate.metricsPort" . }}
      - name: metrics
        containerPort: {{ include "taskgate.metricsPort" . }}
        protocol: TCP
      {{- end }}
    startupProbe:
      httpGet: {path: /livez, port: {{ include "taskgate.probesPort" . }}}
      periodSeconds: {{ .Values.probes.startup.periodSeconds }}
      failureThreshold: {{ .Values.probes.startup.failureThreshold }}
    livenessProbe:
      httpGet: {path: /livez, port: {{ include "taskgate.probesPort" . }}}
      {{- toYaml .Values.probes.liveness | nindent 6 }}
    readinessProbe:
      httpGet: {path: /readyz, port: {{ include "taskgate.probesPort" . }}}
      {{- toYaml .Values.probes.readiness | nindent 6 }}
    {{- if gt (int .Values.preStopSleepSeconds) 0 }}
    lifecycle:
      preStop:
        sleep:
          seconds: {{ .Values.preStopSleepSeconds }}
    {{- end }}
    resources:
      {{- toYaml .Values.resources | nindent 6 }}
  {{- with .Values.extraContainers }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
volumes:
  {{- include "taskgate.volumes" (dict "root" .) | nindent 2 }}
{{- if .Values.topologySpread.enabled }}
topologySpreadConstraints:
  {{- range .Values.topologySpread.topologyKeys }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: {{ $.Values.topologySpread.whenUnsatisfiable }}
    labelSelector:
      matchLabels:
        {{- include "taskgate.gateway" $ | nindent 8 }}
    matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- end }}
{{- end -}}

{{/* The settings that the gateway's pod shares with hook pods. */}}
{{- define "taskgate.podSettings" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- range $key := list "imagePullSecrets" "priorityClassName" "runtimeClassName" "hostAliases" "dnsPolicy" "dnsConfig" "nodeSelector" "tolerations" "affinity" }}
{{- with get $.Values $key }}
{{ $key }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The fields of each container with the gateway's image that reads the configuration. */}}
{{- define "taskgate.container" -}}
image: {{ include "taskgate.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
env:
  - name: TASKGATE_CONFIG
    value: /etc/taskgate/taskgate.yaml
  {{- with .Values.env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
volumeMounts:
  - name: config
    mountPath: /etc/taskgate
    readOnly: true
  {{- if include "taskgate.secretSources" (dict "root" .) }}
  - name: secrets
    mountPath: /run/secrets/taskgate
    readOnly: true
  {{- end }}
  {{- with .Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* Takes root, and for the check suffix (of the ConfigMap) and optional (Secrets may be missing). */}}
{{- define "taskgate.volumes" -}}
- name: config
  configMap:
    name: {{ include "taskgate.fullname" .root }}{{ .suffix }}
{{- with include "taskgate.secretSources" . }}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      {{- . | nindent 6 }}
{{- end }}
{{- with .root.Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The sources of the volume under /run/secrets/taskgate; empty if there are none. Takes root and optional. */}}
{{- define "taskgate.secretSources" -}}
{{- $sources := list -}}
{{- $values := .root.Values -}}
{{- $files := dict -}}
{{- range $name, $secret := $values.secrets.apps -}}
{{- $_ := set $files (printf "apps/%s" $name) $secret -}}
{{- end -}}
{{- with $values.secrets.redisPassword -}}{{- $_ := set $files "redis-password" . -}}{{- end -}}
{{- with $values.secrets.sentinelPassword -}}{{- $_ := set $files "sentinel-password" . -}}{{- end -}}
{{- with $values.secrets.proxyPassword -}}{{- $_ := set $files "proxy-password" . -}}{{- end -}}
{{- with $values.secrets.redisClientCert -}}
{{- $_ := set $files "redis-client/tls.crt" (dict "name" .name "key" .cert) -}}
{{- $_ := set $files "redis-client/tls.key" (dict "name" .name "key" .key) -}}
{{- end -}}
{{- range $section, $bundle := $values.trustedCAs -}}
{{- if $bundle -}}{{- $_ := set $files (printf "%s-ca.crt" $section) (merge (dict "name" (default $bundle.configMap $bundle.secret)) $bundle) -}}{{- end -}}
{{- end -}}
{{- range $path, $file := $files -}}
{{- $source := dict "name" $file.name "items" (list (dict "key" $file.key "path" $path)) -}}
{{- if $.optional -}}{{- $_ := set $source "optional" true -}}{{- end -}}
{{- $sources = append $sources (dict (ternary "configMap" "secret" (hasKey $file "configMap")) $source) -}}
{{- end -}}
{{- if $values.rbac.issuerDiscovery -}}
{{- $token := dict "path" "cluster/token" "expirationSeconds" 3600 -}}
{{- $ca := dict "name" "kube-root-ca.crt" "items" (list (dict "key" "ca.crt" "path" "cluster/ca.crt")) -}}
{{- $sources = concat $sources (list (dict "serviceAccountToken" $token) (dict "configMap" $ca)) -}}
{{- end -}}
{{- if $sources -}}{{- toYaml $sources -}}{{- end -}}
{{- end -}}
