{{- define "crystal-kv.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* At most 40 characters, so that what is put behind it still fits into 63. */}}
{{- define "crystal-kv.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "crystal-kv.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "crystal-kv.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "crystal-kv.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: crystal-kv
{{- end -}}

{{/* Labels that select the pods of a part: (dict "root" . "part" "gateway") */}}
{{- define "crystal-kv.selector" -}}
app.kubernetes.io/name: {{ include "crystal-kv.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end -}}

{{- define "crystal-kv.image" -}}
{{- $image := index .root.Values.images .name -}}
{{- $registry := ternary "" (printf "%s/" .root.Values.images.registry) (empty .root.Values.images.registry) }}
image: {{ printf "%s%s:%s" $registry $image.repository (default .root.Chart.AppVersion $image.tag) | quote }}
imagePullPolicy: {{ .root.Values.images.pullPolicy }}
{{- end -}}

{{- define "crystal-kv.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ . }}
runAsGroup: {{ . }}
fsGroup: {{ . }}
seccompProfile: { type: RuntimeDefault }
{{- end -}}

{{- define "crystal-kv.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end -}}

{{- define "crystal-kv.tokenSecret" -}}
{{- default (printf "%s-policy-token" (include "crystal-kv.fullname" .)) .Values.policyService.existingSecret -}}
{{- end -}}

{{/* crystal-kv.yaml: what the chart decides, and over it what values.config says. */}}
{{- define "crystal-kv.config" -}}
{{- $backend := dict "dns" (printf "%s-backend.%s.svc" (include "crystal-kv.fullname" .) .Release.Namespace) "port" 8000 -}}
{{- if .Values.policyService.exposeToGateway -}}
{{- $_ := set $backend "policyPort" 50051 -}}
{{- end -}}
{{- $keys := dict "store" (eq .Values.gateway.keys.store "none" | ternary "off" .Values.gateway.keys.store) -}}
{{- if eq .Values.gateway.keys.store "file" -}}
{{- $_ := set $keys "file" "/etc/crystal-kv-keys/keys.json" -}}
{{- end -}}
{{- $gateway := dict "host" "0.0.0.0" "port" 8080 "metrics_port" 9090 "backends" (list $backend) "keys" $keys "allow_unauthenticated" .Values.gateway.allowUnauthenticated "drain_ms" (mul .Values.gateway.drainSeconds 1000) -}}
{{- $service := dict "enabled" .Values.enabled "host" (ternary "0.0.0.0" "127.0.0.1" .Values.policyService.exposeToGateway) "metrics_host" "0.0.0.0" -}}
{{- $engine := dict "host" "0.0.0.0" "policy_address" "127.0.0.1:50051" -}}
{{- $config := dict "gateway" $gateway "policy_service" $service "engine" $engine -}}
{{- toYaml (mustMergeOverwrite $config (deepCopy .Values.config)) -}}
{{- end -}}
