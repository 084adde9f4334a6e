{{- define "taskgate.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{/* A release's name may contain dots, a Service's may not. */}}
{{- define "taskgate.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains (include "taskgate.name" .) .Release.Name -}}
{{- .Release.Name | replace "." "-" | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "taskgate.name" .) | replace "." "-" | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "taskgate.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride -}}
{{- end -}}

{{- define "taskgate.selector" -}}
app.kubernetes.io/name: {{ include "taskgate.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "taskgate.gateway" -}}
{{ include "taskgate.selector" . }}
app.kubernetes.io/component: gateway
{{- end -}}

{{/* Labels of an object: the chart's own, then `extra`, then commonLabels; earlier ones win. Takes root, component, extra. */}}
{{- define "taskgate.labels" -}}
{{- $labels := include "taskgate.selector" .root | fromYaml -}}
{{- with .component -}}{{- $_ := set $labels "app.kubernetes.io/component" . -}}{{- end -}}
{{- $_ := set $labels "app.kubernetes.io/version" .root.Chart.AppVersion -}}
{{- $_ := set $labels "app.kubernetes.io/managed-by" .root.Release.Service -}}
{{- $_ := set $labels "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-") -}}
{{- toYaml (merge $labels (default dict .extra) (default dict .root.Values.commonLabels)) -}}
{{- end -}}

{{/* Name, namespace and labels of an object. Takes root and optionally suffix (of the name), component, extra (labels), annotations. */}}
{{- define "taskgate.metadata" -}}
name: {{ include "taskgate.fullname" .root }}{{ .suffix }}
namespace: {{ include "taskgate.namespace" .root }}
labels:
  {{- include "taskgate.labels" . | nindent 2 }}
{{- with .annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "taskgate.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "taskgate.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* The port for probes, which callers can't block if there are metrics. */}}
{{- define "taskgate.probesPort" -}}
{{- ternary "metrics" "http" (ne (include "taskgate.metricsPort" .) "") -}}
{{- end -}}

{{/* Takes registry, repository, tag, digest. */}}
{{- define "taskgate.imageOf" -}}
{{- with .registry -}}{{ . | trimSuffix "/" }}/{{- end -}}
{{- .repository -}}
{{- if .digest -}}@{{ .digest }}{{- else -}}:{{ .tag }}{{- end -}}
{{- end -}}

{{- define "taskgate.image" -}}
{{- $tag := default .Chart.AppVersion .Values.image.tag -}}
{{- include "taskgate.imageOf" (mergeOverwrite (deepCopy .Values.image) (dict "tag" $tag)) -}}
{{- end -}}

{{- define "taskgate.port" -}}
{{- dig "server" "port" 8000 .Values.config | int -}}
{{- end -}}

{{/* Empty without metrics. */}}
{{- define "taskgate.metricsPort" -}}
{{- with dig "telemetry" "metrics_port" "" .Values.config -}}{{- int . -}}{{- end -}}
{{- end -}}

{{/* The maximum number of replicas; empty if something else scales them (replicaCount null). */}}
{{- define "taskgate.replicaLimit" -}}
{{- if .Values.autoscaling.enabled -}}
{{- int .Values.autoscaling.maxReplicas -}}
{{- else if not (kindIs "invalid" .Values.replicaCount) -}}
{{- int .Values.replicaCount -}}
{{- end -}}
{{- end -}}

{{/* The divisor for `share`: config.budget.max_replicas, otherwise the limit. */}}
{{- define "taskgate.maxReplicas" -}}
{{- dig "max_replicas" "" (default dict .Values.config.budget) | default (include "taskgate.replicaLimit" .) -}}
{{- end -}}

{{/*
The Deployment's `replicas`. With an autoscaler, the cluster's current number: if the field were removed, Helm would
delete it and Kubernetes would default to 1. Empty if there is no cluster to query (`helm template`).
*/}}
{{- define "taskgate.replicas" -}}
{{- if or .Values.autoscaling.enabled (kindIs "invalid" .Values.replicaCount) -}}
{{- $live := lookup "apps/v1" "Deployment" (include "taskgate.namespace" .) (include "taskgate.fullname" .) -}}
{{- dig "spec" "replicas" "" (default dict $live) -}}
{{- else -}}
{{- .Values.replicaCount -}}
{{- end -}}
{{- end -}}

{{/* The metrics of the autoscaler; takes its values. Those of pods have the names of examples/prometheus-adapter-values.yaml. */}}
{{- define "taskgate.scalingMetrics" -}}
{{- if .metrics -}}
{{- toYaml .metrics -}}
{{- else if eq .by "cpu" -}}
- type: Resource
  resource:
    name: cpu
    target: {type: AverageValue, averageValue: {{ default "700m" .target | quote }}}
{{- else -}}
{{- $lag := eq .by "eventLoopLag" -}}
- type: Pods
  pods:
    metric: {name: {{ ternary "taskgate_event_loop_lag_seconds_p99" "taskgate_requests_per_second" $lag }}}
    target: {type: AverageValue, averageValue: {{ default (ternary "20m" "500" $lag) .target | quote }}}
{{- end -}}
{{- end -}}
