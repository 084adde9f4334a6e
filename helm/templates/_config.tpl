{{/* taskgate.yaml: `config`, and what the chart knows better. */}}
{{- define "taskgate.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- include "taskgate.checkConfig" . -}}
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
{{- $_ := set $config "budget" (merge (dict "max_replicas" (include "taskgate.maxReplicas" . | int)) (default dict $config.budget)) -}}
{{- toYaml $config -}}
{{- end -}}

{{/* What values.schema.json can't say. Each refusal names the value and what to do. */}}
{{- define "taskgate.checkConfig" -}}
{{- $config := .Values.config -}}
{{- if not $config.apps -}}
{{- fail "config.apps: name at least one upstream application (sdkappid, admin), and its Secret under secrets.apps" -}}
{{- end -}}
{{- range $name, $app := $config.apps -}}
{{- $given := or $app.secret_file $app.secret_env -}}
{{- if and $given (hasKey $.Values.secrets.apps $name) -}}
{{- fail (printf "config.apps.%s: has a secret_file or secret_env, and a Secret under secrets.apps; one of them must go" $name) -}}
{{- else if not (or $given (hasKey $.Values.secrets.apps $name)) -}}
{{- fail (printf "secrets.apps.%s: missing; name the Secret that holds the app's key, as {name: ..., key: ...}" $name) -}}
{{- end -}}
{{- end -}}
{{- range $name, $_ := .Values.secrets.apps -}}
{{- if not (hasKey $config.apps $name) -}}
{{- fail (printf "secrets.apps.%s: config.apps has no app of this name; it has %s" $name (keys $config.apps | sortAlpha | join ", ")) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.valkey.enabled $config.redis.url -}}
{{- fail "config.redis.url: valkey.enabled sets it; leave one of them out" -}}
{{- else if and .Values.valkey.enabled (or .Values.secrets.redisPassword (ne (default "single" $config.redis.mode) "single")) -}}
{{- fail "valkey.enabled: that Valkey has no password and is a single one; leave secrets.redisPassword and config.redis.mode out" -}}
{{- else if not (or .Values.valkey.enabled $config.redis.url) -}}
{{- fail "config.redis.url: missing; say where Redis is (redis://HOST:6379/0), or try Taskgate out with valkey.enabled=true" -}}
{{- end -}}
{{- if and .Values.secrets.redisPassword (or $config.redis.password_file $config.redis.password_env) -}}
{{- fail "config.redis: has a password_file or password_env, and secrets.redisPassword is set; one of them must go" -}}
{{- end -}}
{{- if and .Values.secrets.sentinelPassword (or $config.redis.sentinel_password_file $config.redis.sentinel_password_env) -}}
{{- fail "config.redis: has a sentinel_password_file or sentinel_password_env, and secrets.sentinelPassword is set; one of them must go" -}}
{{- end -}}
{{- if hasKey (default dict $config.budget) "max_replicas" -}}
{{- fail "config.budget.max_replicas: the chart sets it (autoscaling.maxReplicas, or replicaCount); leave it out" -}}
{{- end -}}
{{- if and (eq (include "taskgate.port" .) (include "taskgate.metricsPort" .)) (include "taskgate.metricsPort" .) -}}
{{- fail "config.telemetry.metrics_port: the same as config.server.port" -}}
{{- end -}}
{{- if and (or .Values.serviceMonitor.enabled .Values.prometheusRule.enabled) (not (include "taskgate.metricsPort" .)) -}}
{{- fail "config.telemetry.metrics_port: missing; serviceMonitor and prometheusRule need metrics" -}}
{{- end -}}
{{- if and .Values.prometheusRule.enabled (not .Values.prometheusRule.runbookUrl) -}}
{{- fail "prometheusRule.runbookUrl: missing; say where docs/runbook.md can be read, for each alert links to it" -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled (gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) -}}
{{- fail "autoscaling.minReplicas: more than autoscaling.maxReplicas" -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled (not (dig "requests" "cpu" "" .Values.resources)) -}}
{{- fail "resources.requests.cpu: missing; autoscaling measures against it" -}}
{{- end -}}
{{- if eq (dig "on_redis_down" "closed" (default dict $config.budget)) "share" -}}
{{- $replicas := include "taskgate.maxReplicas" . | int -}}
{{- range $name, $app := $config.apps -}}
{{- $where := ternary (printf "config.apps.%s.calls" $name) "config.budget.calls" (not (not $app.calls)) -}}
{{- $calls := default (dig "calls" 5 (default dict $config.budget)) $app.calls | int -}}
{{- if gt $replicas $calls -}}
{{- fail (printf "%s: %d replicas can't share %d call%s when Redis is down; run fewer, or set config.budget.on_redis_down to closed" $where $replicas $calls (ternary "" "s" (eq $calls 1))) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) -}}
{{- fail "ingress.hosts: missing; name at least one host" -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) -}}
{{- fail "httpRoute.parentRefs: missing; name the Gateway, as {name: ..., namespace: ...}" -}}
{{- end -}}
{{- if and (eq (toString .Values.strategy.maxSurge) "0") (eq (toString .Values.strategy.maxUnavailable) "0") -}}
{{- fail "strategy: maxSurge and maxUnavailable are both 0; a rollout could not begin" -}}
{{- end -}}
{{- end -}}

{{/* The sleep, the drain and 10 s for closing must fit; by default the longest patience does too. */}}
{{- define "taskgate.gracePeriod" -}}
{{- $server := default dict .Values.config.server -}}
{{- $drain := dig "drain_s" 35.0 $server | float64 | ceil | int -}}
{{- $patience := dig "wait_max_s" 30.0 (default dict .Values.config.budget) | float64 | ceil | int -}}
{{- $least := add .Values.preStopSleepSeconds $drain 10 | int -}}
{{- if kindIs "invalid" .Values.terminationGracePeriodSeconds -}}
{{- add $least $patience -}}
{{- else if lt (int .Values.terminationGracePeriodSeconds) $least -}}
{{- fail (printf "terminationGracePeriodSeconds: at least %d (preStopSleepSeconds, config.server.drain_s and 10 to close), or pods are killed in the middle of requests" $least) -}}
{{- else -}}
{{- int .Values.terminationGracePeriodSeconds -}}
{{- end -}}
{{- end -}}

{{/* Redis' ports, as a JSON list. */}}
{{- define "taskgate.redisPorts" -}}
{{- if .Values.networkPolicy.redis.ports -}}
{{- toJson .Values.networkPolicy.redis.ports -}}
{{- else -}}
{{- $ports := list -}}
{{- $hosts := regexReplaceAll "^[a-z]+://([^/]*@)?([^/?]*).*$" (default "" .Values.config.redis.url) "${2}" -}}
{{- range $host := splitList "," $hosts -}}
{{- $port := regexFind ":[0-9]+$" $host | trimPrefix ":" -}}
{{- $ports = append $ports (default "6379" $port | int) -}}
{{- end -}}
{{- if eq (default "single" .Values.config.redis.mode) "sentinel" -}}
{{- $ports = append $ports 6379 -}}
{{- end -}}
{{- $ports | uniq | toJson -}}
{{- end -}}
{{- end -}}
