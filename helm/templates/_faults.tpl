{{/* All faults of the values that the schema can't detect: one per line, starting with the value's path. */}}
{{- define "taskgate.faults" -}}
{{- if not .Values.config.apps -}}
{{- println "config.apps: name at least one upstream application (sdkappid, admin), and its Secret under secrets.apps" -}}
{{- else -}}
{{- include "taskgate.secretFaults" . -}}
{{- include "taskgate.redisFaults" . -}}
{{- include "taskgate.rules" . -}}
{{- include "taskgate.podFaults" . -}}
{{- include "taskgate.objectFaults" . -}}
{{- end -}}
{{- end -}}

{{- define "taskgate.secretFaults" -}}
{{- $apps := .Values.config.apps -}}
{{- $secrets := .Values.secrets -}}
{{- range $name, $app := $apps -}}
{{- $given := or $app.secret_file $app.secret_env -}}
{{- if and $given (hasKey $secrets.apps $name) -}}
{{- printf "config.apps.%s: has a secret_file or secret_env, and a Secret under secrets.apps; remove one of them\n" $name -}}
{{- else if not (or $given (hasKey $secrets.apps $name)) -}}
{{- printf "secrets.apps.%s: missing; name the Secret that holds the app's key, as {name: ..., key: ...}\n" $name -}}
{{- end -}}
{{- end -}}
{{- range $name, $_ := $secrets.apps -}}
{{- if not (hasKey $apps $name) -}}
{{- printf "secrets.apps.%s: config.apps has no app of this name; it has %s\n" $name (keys $apps | sortAlpha | join ", ") -}}
{{- end -}}
{{- end -}}
{{- $redis := default dict .Values.config.redis -}}
{{- $upstream := default dict .Values.config.upstream -}}
{{- $both := "config.%s: has a %s, and %s is set; remove one of them\n" -}}
{{- range $name, $value := dict "password" "redisPassword" "sentinel_password" "sentinelPassword" -}}
{{- $file := printf "%s_file" $name -}}
{{- $variable := printf "%s_env" $name -}}
{{- if and (get $secrets $value) (or (get $redis $file) (get $redis $variable)) -}}
{{- printf $both "redis" (printf "%s or %s" $file $variable) (printf "secrets.%s" $value) -}}
{{- end -}}
{{- end -}}
{{- if and $secrets.redisClientCert (or $redis.cert_file $redis.key_file) -}}
{{- printf $both "redis" "cert_file or key_file" "secrets.redisClientCert" -}}
{{- end -}}
{{- range $section, $settings := dict "redis" $redis "upstream" $upstream -}}
{{- if and (get $.Values.trustedCAs $section) $settings.ca_file -}}
{{- printf $both $section "ca_file" (printf "trustedCAs.%s" $section) -}}
{{- end -}}
{{- end -}}
{{- if and (or $secrets.redisClientCert .Values.trustedCAs.redis) (not (hasPrefix "rediss://" (default "" $redis.url))) -}}
{{- println "config.redis.url: secrets.redisClientCert and trustedCAs.redis need TLS: a URL that begins with rediss://" -}}
{{- end -}}
{{- $given := or $upstream.proxy_password_file $upstream.proxy_password_env -}}
{{- if and $secrets.proxyPassword $given -}}
{{- printf $both "upstream" "proxy_password_file or proxy_password_env" "secrets.proxyPassword" -}}
{{- end -}}
{{- if ne (not $upstream.proxy_username) (not (or $given $secrets.proxyPassword)) -}}
{{- println "config.upstream.proxy_username: must be set together with secrets.proxyPassword, as {name: ..., key: ...}" -}}
{{- end -}}
{{- end -}}

{{- define "taskgate.redisFaults" -}}
{{- $redis := default dict .Values.config.redis -}}
{{- if and .Values.valkey.enabled $redis.url -}}
{{- println "config.redis.url: valkey.enabled sets it; remove one of them" -}}
{{- else if and .Values.valkey.enabled (or .Values.secrets.redisPassword (ne (default "single" $redis.mode) "single")) -}}
{{- println "valkey.enabled: that Valkey has no password and is a single server; remove secrets.redisPassword and config.redis.mode" -}}
{{- else if not (or .Values.valkey.enabled $redis.url) -}}
{{- println "config.redis.url: missing; set it to the address of Redis (redis://HOST:6379/0), or try Taskgate out with valkey.enabled=true" -}}
{{- end -}}
{{- end -}}

{{/* Faults that would keep the pods from starting, from being reached or from being replaced. */}}
{{- define "taskgate.podFaults" -}}
{{- range $section, $name := dict "server" "host" "telemetry" "metrics_host" -}}
{{- $host := dig $section $name "" (deepCopy $.Values.config) -}}
{{- if include "taskgate.isLoopback" $host -}}
{{- printf "config.%s.%s: %s is reachable only from inside the pod; use 0.0.0.0, or \"::\" if pods have only IPv6\n" $section $name $host -}}
{{- end -}}
{{- end -}}
{{- $none := `^0+%?$` -}}
{{- if and (regexMatch $none (toString .Values.strategy.maxSurge)) (regexMatch $none (toString .Values.strategy.maxUnavailable)) -}}
{{- println "strategy: maxSurge and maxUnavailable are both 0, so no rollout can start" -}}
{{- end -}}
{{- $least := include "taskgate.leastGracePeriod" . | int -}}
{{- $grace := .Values.terminationGracePeriodSeconds -}}
{{- if and (not (kindIs "invalid" $grace)) (lt (int $grace) $least) -}}
{{- printf "terminationGracePeriodSeconds: at least %d (preStopSleepSeconds, config.server.drain_s and 10 to close), or pods are killed in the middle of requests\n" $least -}}
{{- end -}}
{{- $limit := include "taskgate.replicaLimit" . -}}
{{- $max := include "taskgate.maxReplicas" . -}}
{{- $shares := eq (dig "on_redis_down" "closed" (default dict .Values.config.budget)) "share" -}}
{{- if and $shares (not $max) -}}
{{- println "config.budget.max_replicas: missing; replicaCount is null, and on_redis_down: share divides the calls by the maximum number of replicas" -}}
{{- else if and $limit (lt (int $max) (int $limit)) -}}
{{- $where := ternary "autoscaling.maxReplicas" "replicaCount" .Values.autoscaling.enabled -}}
{{- printf "config.budget.max_replicas: %d, but %s allows %d\n" (int $max) $where (int $limit) -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled (gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) -}}
{{- println "autoscaling.minReplicas: more than autoscaling.maxReplicas" -}}
{{- end -}}
{{- end -}}

{{/* Faults that would create an object that Kubernetes rejects, or one without effect. */}}
{{- define "taskgate.objectFaults" -}}
{{- $name := include "taskgate.fullname" . -}}
{{- if not (regexMatch `^[a-z]([-a-z0-9]*[a-z0-9])?$` $name) -}}
{{- printf "fullnameOverride: missing; the release is called %s, but a Service's name must begin with a letter\n" .Release.Name -}}
{{- end -}}
{{- if and (or .Values.serviceMonitor.enabled .Values.prometheusRule.enabled) (not (include "taskgate.metricsPort" .)) -}}
{{- println "config.telemetry.metrics_port: missing; serviceMonitor and prometheusRule need metrics" -}}
{{- end -}}
{{- if and .Values.prometheusRule.enabled (not .Values.prometheusRule.runbookUrl) -}}
{{- println "prometheusRule.runbookUrl: missing; set it to the address of docs/runbook.md, to which each alert links" -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) -}}
{{- println "ingress.hosts: missing; name at least one host" -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) -}}
{{- println "httpRoute.parentRefs: missing; name the Gateway, as {name: ..., namespace: ...}" -}}
{{- end -}}
{{- if eq .Values.service.type "ClusterIP" -}}
{{- range $key := list "nodePort" "externalTrafficPolicy" "loadBalancerClass" "loadBalancerSourceRanges" -}}
{{- if get $.Values.service $key -}}
{{- printf "service.%s: needs service.type NodePort or LoadBalancer\n" $key -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $least := .Values.podDisruptionBudget.minAvailable -}}
{{- $limit := include "taskgate.replicaLimit" . -}}
{{- if and .Values.podDisruptionBudget.enabled $limit (regexMatch `^[0-9]+$` (toString $least)) (ge (int $least) (int $limit)) -}}
{{- printf "podDisruptionBudget.minAvailable: %d of %d replicas; no node could be drained\n" (int $least) (int $limit) -}}
{{- end -}}
{{- end -}}

{{- define "taskgate.isLoopback" -}}
{{- if or (regexMatch `^127\.[0-9]+\.[0-9]+\.[0-9]+$` (toString .)) (has . (list "localhost" "::1")) -}}yes{{- end -}}
{{- end -}}
