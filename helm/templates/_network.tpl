{{- define "taskgate.tcpPorts" -}}
{{- range $index, $port := . }}
{{- if $index }}
{{ end -}}
- {port: {{ $port | int }}, protocol: TCP}
{{- end }}
{{- end -}}

{{/* The port of a URL's single host; by default its scheme's. */}}
{{- define "taskgate.portOfUrl" -}}
{{- $host := regexFind `^[a-z]+://[^/?#]*` . -}}
{{- regexFind `:[0-9]+$` $host | trimPrefix ":" | default (ternary "443" "80" (hasPrefix "https:" .)) -}}
{{- end -}}

{{/* Redis' ports, as a JSON list; none for a unix socket. */}}
{{- define "taskgate.redisPorts" -}}
{{- $redis := .Values.config.redis -}}
{{- if .Values.networkPolicy.redis.ports -}}
{{- toJson .Values.networkPolicy.redis.ports -}}
{{- else if hasPrefix "unix:" (default "" $redis.url) -}}
[]
{{- else -}}
{{- $ports := list -}}
{{- $hosts := regexReplaceAll "^[a-z]+://([^/]*@)?([^/?]*).*$" (default "" $redis.url) "${2}" -}}
{{- range $host := splitList "," $hosts -}}
{{- $port := regexFind ":[0-9]+$" $host | trimPrefix ":" -}}
{{- $ports = append $ports (default "6379" $port | int) -}}
{{- end -}}
{{- if eq (default "single" $redis.mode) "sentinel" -}}
{{- $ports = append $ports 6379 -}}
{{- end -}}
{{- $ports | uniq | toJson -}}
{{- end -}}
{{- end -}}

{{/* The URLs of the upstream other than its regions' public hosts: base URLs, and a proxy. */}}
{{- define "taskgate.upstreamUrls" -}}
{{- $urls := list -}}
{{- range $name, $app := .Values.config.apps -}}
{{- with $app.base_url -}}{{- $urls = append $urls . -}}{{- end -}}
{{- end -}}
{{- with dig "proxy_url" "" (default dict .Values.config.upstream) -}}{{- $urls = list . -}}{{- end -}}
{{- toJson $urls -}}
{{- end -}}

{{/* As a JSON list: 443 if an app is called by its region, and the ports of base URLs; with a proxy, only its port. */}}
{{- define "taskgate.upstreamPorts" -}}
{{- if .Values.networkPolicy.https.ports -}}
{{- toJson .Values.networkPolicy.https.ports -}}
{{- else -}}
{{- $ports := list -}}
{{- range include "taskgate.upstreamUrls" . | fromJsonArray -}}
{{- $ports = append $ports (include "taskgate.portOfUrl" . | int) -}}
{{- end -}}
{{- if not (dig "proxy_url" "" (default dict .Values.config.upstream)) -}}
{{- range $name, $app := .Values.config.apps -}}
{{- if not $app.base_url -}}{{- $ports = append $ports 443 -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- $ports | uniq | toJson -}}
{{- end -}}
{{- end -}}

{{/* The values' peers; by default public addresses, or any if a base URL or a proxy may be inside the cluster. */}}
{{- define "taskgate.upstreamPeers" -}}
{{- if .Values.networkPolicy.https.to -}}
{{- toYaml .Values.networkPolicy.https.to -}}
{{- else if not (include "taskgate.upstreamUrls" . | fromJsonArray) -}}
- ipBlock:
    cidr: 0.0.0.0/0
    except: [10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 169.254.0.0/16, 172.16.0.0/12, 192.168.0.0/16]
- ipBlock:
    cidr: "::/0"
    except: ["fc00::/7", "fe80::/10"]
{{- else -}}
[]
{{- end -}}
{{- end -}}
