{{/*
For each objective and window, the burn rate: the share of bad events divided by the share that the objective allows.
Windows of an hour or more need 30 events, so that one failure in a quiet night is no outage. Takes objectives, selector,
namespace, job.
*/}}
{{- define "taskgate.burnRates" -}}
{{- range $slo, $counted := include "taskgate.slos" .selector | fromYaml -}}
{{- $allowed := divf (subf 100 (get $.objectives $slo)) 100 -}}
{{- range $window := list "5m" "30m" "1h" "2h" "6h" "1d" "3d" }}
- record: taskgate:slo_burn:rate{{ $window }}
  expr: >-
    ({{ $counted.bad | replace "WINDOW" $window }} or 0 * {{ $counted.all | replace "WINDOW" $window }})
    / ({{ $counted.all | replace "WINDOW" $window }} >{{ ternary " 0" "= 30" (hasSuffix "m" $window) }})
    / {{ $allowed }}
  labels: {slo: {{ $slo }}, namespace: {{ $.namespace | quote }}, job: {{ $.job | quote }}}
{{- end }}
{{- end }}
{{- end -}}

{{/* The events counted in a WINDOW. Bad for `wait`: refusals, and waits of more than 5 s. Takes the selector. */}}
{{- define "taskgate.slos" -}}
availability:
  bad: sum(increase(taskgate_requests_total{ {{- . -}} ,route="/tasks",status=~"5..",outcome="none"}[WINDOW]))
  all: sum(increase(taskgate_requests_total{ {{- . -}} ,route="/tasks",outcome!="declined"}[WINDOW]))
freshness:
  bad: sum by (app) (increase(taskgate_caller_requests_total{ {{- . -}} ,outcome="fallback"}[WINDOW]))
  all: sum by (app) (increase(taskgate_caller_requests_total{ {{- . -}} ,outcome=~"hit|joined|fetched|stale|fallback"}[WINDOW]))
wait:
  bad: >-
    sum by (app) (increase(taskgate_caller_requests_total{ {{- . -}} ,outcome="refused"}[WINDOW])
    or (increase(taskgate_line_wait_seconds_count{ {{- . -}} ,outcome=~"fetched|joined"}[WINDOW])
    - ignoring (le) increase(taskgate_line_wait_seconds_bucket{ {{- . -}} ,outcome=~"fetched|joined",le="5.0"}[WINDOW])))
  all: sum by (app) (increase(taskgate_caller_requests_total{ {{- . -}} ,outcome=~"hit|joined|fetched|stale|fallback|refused"}[WINDOW]))
{{- end -}}
