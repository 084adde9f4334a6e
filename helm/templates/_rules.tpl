{{/*
The gateway's rules (service/configuration/) in its wording, as far as they need no file and no network.
The tests compare both; the Job of templates/check.yaml lets the gateway check the rest.
*/}}
{{- define "taskgate.rules" -}}
{{- $settings := include "taskgate.settings" . | fromJson -}}
{{- $regions := (.Files.Get "files/settings.json" | fromJson).regions -}}
{{- range $name, $app := $settings.apps -}}
{{- include "taskgate.appRules" (dict "path" (printf "config.apps.%s" $name) "app" $app "regions" $regions) -}}
{{- end -}}
{{- include "taskgate.callerRules" $settings -}}
{{- include "taskgate.tokenRules" $settings -}}
{{- include "taskgate.urlRules" $settings.redis -}}
{{- include "taskgate.shareRules" (dict "settings" $settings "replicas" (include "taskgate.maxReplicas" . | int)) -}}
{{- include "taskgate.sectionRules" $settings -}}
{{- end -}}

{{- define "taskgate.appRules" -}}
{{- if and .app.region .app.base_url -}}
{{- printf "%s: region and base_url are both set; remove one of them\n" .path -}}
{{- end -}}
{{- if and .app.region (not (has .app.region .regions)) -}}
{{- printf "%s.region: no such region; known regions: %s\n" .path (join ", " .regions) -}}
{{- end -}}
{{- if and .app.secret_file .app.secret_env -}}
{{- printf "%s: secret_file and secret_env are both set; remove one of them\n" .path -}}
{{- end -}}
{{- with .app.base_url -}}
{{- if not (regexMatch `^https?://` .) -}}
{{- printf "%s.base_url: a base URL must start with https:// or http://\n" $.path -}}
{{- else if regexMatch `^https?://[^/?#]*@` . -}}
{{- printf "%s.base_url: a base URL must not contain a user or a password\n" $.path -}}
{{- else if regexMatch `[?#]` . -}}
{{- printf "%s.base_url: a base URL must not contain a query or a fragment\n" $.path -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "taskgate.callerRules" -}}
{{- $apps := keys .apps | sortAlpha -}}
{{- $seen := dict -}}
{{- range $name := keys .callers | sortAlpha -}}
{{- $caller := get $.callers $name -}}
{{- include "taskgate.policyRules" (dict "path" (printf "config.callers.%s" $name) "policy" $caller "apps" $apps) -}}
{{- range $index, $key := $caller.keys -}}
{{- $hash := $key -}}
{{- if kindIs "map" $key -}}{{- $hash = $key.sha256 -}}{{- end -}}
{{- $path := printf "callers.%s.keys[%d]" $name $index -}}
{{- if hasKey $seen $hash -}}
{{- printf "config.%s: the same key as %s\n" $path (get $seen $hash) -}}
{{- else -}}
{{- $_ := set $seen $hash $path -}}
{{- end -}}
{{- end -}}
{{- range $index, $account := $caller.service_accounts -}}
{{- $path := printf "callers.%s.service_accounts[%d]" $name $index -}}
{{- if hasKey $seen $account -}}
{{- printf "config.%s: the same as %s\n" $path (get $seen $account) -}}
{{- else -}}
{{- $_ := set $seen $account $path -}}
{{- end -}}
{{- end -}}
{{- if and $caller.service_accounts (not $.service_accounts) -}}
{{- printf "config.callers.%s.service_accounts: needs the section service_accounts\n" $name -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "taskgate.policyRules" -}}
{{- range $index, $app := .policy.apps -}}
{{- if not (has $app $.apps) -}}
{{- printf "%s.apps[%d]: no such app; known apps: %s\n" $.path $index (join ", " $.apps) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "taskgate.tokenRules" -}}
{{- $apps := keys .apps | sortAlpha -}}
{{- with .service_accounts -}}
{{- if and .jwks_url .jwks_file -}}
{{- println "config.service_accounts: jwks_url and jwks_file are both set; remove one of them" -}}
{{- else if not (or .jwks_url .jwks_file) -}}
{{- println "config.service_accounts: set one of jwks_url and jwks_file" -}}
{{- end -}}
{{- if not .jwks_url -}}
{{- if .ca_file -}}{{- println "config.service_accounts.ca_file: is only valid with jwks_url" -}}{{- end -}}
{{- if .token_file -}}{{- println "config.service_accounts.token_file: is only valid with jwks_url" -}}{{- end -}}
{{- else if not (regexMatch `^https?://[^/?#]+` .jwks_url) -}}
{{- println "config.service_accounts.jwks_url: expected https://HOST/PATH" -}}
{{- else if regexMatch `^https?://[^/?#]*@` .jwks_url -}}
{{- println "config.service_accounts.jwks_url: contains a user or a password; name a token_file instead" -}}
{{- end -}}
{{- if .unknown -}}
{{- include "taskgate.policyRules" (dict "path" "config.service_accounts.unknown" "policy" .unknown "apps" $apps) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Takes the section redis; its url is empty if the chart sets it. */}}
{{- define "taskgate.urlRules" -}}
{{- $redis := . -}}
{{- with .url -}}
{{- $hosts := regexReplaceAll `^[a-z]+://([^@]*@)*` (regexFind `^[a-z]+://[^/?#]*` .) "" -}}
{{- if or (regexMatch `^[^/]*://[^/?#]*:[^/?#]*@` .) (regexMatch `[?&]password=` .) -}}
{{- println "config.redis.url: the URL contains a password and is logged; use redis.password_file or redis.password_env" -}}
{{- else if regexMatch `^unix:` . -}}
{{- if ne $redis.mode "single" -}}
{{- printf "config.redis.url: a unix socket is not possible with redis.mode %s\n" $redis.mode -}}
{{- end -}}
{{- else if not (regexMatch `^rediss?://` .) -}}
{{- println "config.redis.url: expected redis://, rediss:// or unix://" -}}
{{- else -}}
{{- if and (contains "," $hosts) (eq $redis.mode "single") -}}
{{- println "config.redis.url: several hosts need redis.mode sentinel or cluster" -}}
{{- end -}}
{{- range $host := splitList "," $hosts -}}
{{- $port := regexFind `:[^:\]]*$` $host | trimPrefix ":" -}}
{{- if regexMatch `^(:|$)` $host -}}
{{- println "config.redis.url: names no host" -}}
{{- else if and $port (or (not (regexMatch `^[0-9]+$` $port)) (gt (int $port) 65535) (lt (int $port) 1)) -}}
{{- println "config.redis.url: the port must be from 1 to 65535" -}}
{{- end -}}
{{- end -}}
{{- $database := regexReplaceAll `^[a-z]+://[^/?#]*([^?#]*).*$` . "${1}" | trimAll "/" -}}
{{- if not (regexMatch `^[0-9]{0,5}$` $database) -}}
{{- println "config.redis.url: the database (after the slash) must be a number" -}}
{{- else if and (eq $redis.mode "cluster") (not (has $database (list "" "0"))) -}}
{{- println "config.redis.url: a cluster has only database 0" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "taskgate.shareRules" -}}
{{- $budget := .settings.budget -}}
{{- if eq $budget.on_redis_down "share" -}}
{{- range $name, $app := .settings.apps -}}
{{- $where := ternary (printf "apps.%s.calls" $name) "budget.calls" (not (not $app.calls)) -}}
{{- $calls := default $budget.calls $app.calls | int -}}
{{- if gt $.replicas $calls -}}
{{- printf "config.budget.max_replicas: %d replicas can't share %d calls (%s) while Redis is away\n" $.replicas $calls $where -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "taskgate.sectionRules" -}}
{{- if and (eq .auth "none") (not (include "taskgate.isLoopback" .server.host)) -}}
{{- println "config.auth: none is allowed on loopback only; server.host must be 127.0.0.1, ::1 or localhost" -}}
{{- end -}}
{{- if gt .budget.wait_default_s .budget.wait_max_s -}}
{{- printf "config.budget.wait_default_s: %g is more than budget.wait_max_s, %g\n" .budget.wait_default_s .budget.wait_max_s -}}
{{- end -}}
{{- range $name := list "connect_timeout_s" "read_timeout_s" -}}
{{- if gt (get $.upstream $name) $.upstream.call_timeout_s -}}
{{- printf "config.upstream.%s: %g is more than upstream.call_timeout_s, %g, for the whole call\n" $name (get $.upstream $name) $.upstream.call_timeout_s -}}
{{- end -}}
{{- end -}}
{{- if and .upstream.proxy_username (not .upstream.proxy_url) -}}
{{- println "config.upstream.proxy_username: is only valid with proxy_url" -}}
{{- end -}}
{{- with .upstream.proxy_url -}}
{{- if not (regexMatch `^http://[^/?#]+/?$` .) -}}
{{- println "config.upstream.proxy_url: expected http://HOST:PORT" -}}
{{- else if contains "@" . -}}
{{- println "config.upstream.proxy_url: contains a user or a password, which would be logged; use proxy_username and proxy_password_file" -}}
{{- end -}}
{{- end -}}
{{- if and .telemetry.metrics_port (eq .telemetry.metrics_port .server.port) -}}
{{- println "config.telemetry.metrics_port: the same as server.port: metrics need a separate port" -}}
{{- end -}}
{{- range $name := list "password" "sentinel_password" -}}
{{- if and (get $.redis (printf "%s_file" $name)) (get $.redis (printf "%s_env" $name)) -}}
{{- printf "config.redis: %s_file and %s_env are both set; remove one of them\n" $name $name -}}
{{- end -}}
{{- end -}}
{{- end -}}
