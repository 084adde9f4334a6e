{{/* taskgate.yaml: `config`, with the settings that the chart determines. */}}
{{- define "taskgate.config" -}}
{{- with include "taskgate.faults" . | trim -}}
{{- fail (printf "\n%s" .) -}}
{{- end -}}
{{- $config := deepCopy .Values.config -}}
{{- range $name, $secret := .Values.secrets.apps -}}
{{- $_ := set (get $config.apps $name) "secret_file" (printf "/run/secrets/taskgate/apps/%s" $name) -}}
{{- end -}}
{{- if .Values.valkey.enabled -}}
{{- $_ := set $config.redis "url" (printf "redis://%s-valkey:6379/0" (include "taskgate.fullname" .)) -}}
{{- end -}}
{{- if .Values.secrets.redisPassword -}}
{{- $_ := set $config.redis "password_file" "/run/secrets/taskgate/redis-password" -}}
{{- end -}}
{{- if .Values.secrets.sentinelPassword -}}
{{- $_ := set $config.redis "sentinel_password_file" "/run/secrets/taskgate/sentinel-password" -}}
{{- end -}}
{{- with .Values.secrets.redisClientCert -}}
{{- $_ := set $config.redis "cert_file" "/run/secrets/taskgate/redis-client/tls.crt" -}}
{{- $_ := set $config.redis "key_file" "/run/secrets/taskgate/redis-client/tls.key" -}}
{{- end -}}
{{- range $section := list "redis" "upstream" -}}
{{- if get $.Values.trustedCAs $section -}}
{{- $_ := set (get $config $section) "ca_file" (printf "/run/secrets/taskgate/%s-ca.crt" $section) -}}
{{- end -}}
{{- end -}}
{{- if .Values.secrets.proxyPassword -}}
{{- $_ := set $config.upstream "proxy_password_file" "/run/secrets/taskgate/proxy-password" -}}
{{- end -}}
{{- if eq (dig "on_redis_down" "closed" (default dict $config.budget)) "share" -}}
{{- $_ := set $config.budget "max_replicas" (include "taskgate.maxReplicas" . | int) -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{/* The settings as JSON: `config` over the gateway's defaults. For rules; numbers are floats here. */}}
{{- define "taskgate.settings" -}}
{{- $known := .Files.Get "files/settings.json" | fromJson -}}
{{- $settings := mergeOverwrite $known.defaults (deepCopy .Values.config) -}}
{{- range $name, $value := $settings -}}
{{- if kindIs "invalid" $value -}}{{- $_ := set $settings $name dict -}}{{- end -}}
{{- end -}}
{{- toJson $settings -}}
{{- end -}}

{{/*
The part of the configuration that needs a restart: changing it rolls the pods. With liveReload, what the gateway
can reload is omitted.
*/}}
{{- define "taskgate.rolledConfig" -}}
{{- $config := include "taskgate.config" . | fromYaml -}}
{{- if .Values.liveReload -}}
{{- range $path := (.Files.Get "files/settings.json" | fromJson).live -}}
{{- $parts := splitList "." $path -}}
{{- if eq (len $parts) 1 -}}
{{- $_ := unset $config $path -}}
{{- else -}}
{{- $_ := unset (default dict (get $config (first $parts))) (last $parts) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{/* The sleep, the drain and 10 s for closing must fit; by default the longest patience does too. */}}
{{- define "taskgate.leastGracePeriod" -}}
{{- $settings := include "taskgate.settings" . | fromJson -}}
{{- add .Values.preStopSleepSeconds (ceil $settings.server.drain_s) 10 -}}
{{- end -}}

{{- define "taskgate.gracePeriod" -}}
{{- if kindIs "invalid" .Values.terminationGracePeriodSeconds -}}
{{- $settings := include "taskgate.settings" . | fromJson -}}
{{- add (include "taskgate.leastGracePeriod" .) (ceil $settings.budget.wait_max_s) -}}
{{- else -}}
{{- int .Values.terminationGracePeriodSeconds -}}
{{- end -}}
{{- end -}}
