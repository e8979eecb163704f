{{- define "hgrn2.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "hgrn2.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains (include "hgrn2.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "hgrn2.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What selects the pods: must never change for a release. */}}
{{- define "hgrn2.selectorLabels" -}}
app.kubernetes.io/name: {{ include "hgrn2.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: server
{{- end -}}

{{- define "hgrn2.commonLabels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: hgrn2-server
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "hgrn2.labels" -}}
{{ include "hgrn2.selectorLabels" . }}
{{ include "hgrn2.commonLabels" . }}
{{- end -}}

{{- define "hgrn2.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "hgrn2.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "hgrn2.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- $default := printf "%s-%s" .Chart.AppVersion (ternary "cuda" "cpu" .Values.gpu.enabled) -}}
{{- printf "%s:%s" .Values.image.repository (default $default .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "hgrn2.modelPath" -}}
{{- if eq .Values.model.source "embedded" -}}
{{- if .Values.gpu.enabled -}}
{{- fail "the CUDA image holds no model: set model.source to pvc, image, init or volume" -}}
{{- end -}}
/opt/hgrn2/share/models/hgrn2-gutenberg-12m
{{- else -}}
{{- printf "/models/%s" .Values.model.path | trimSuffix "/" -}}
{{- end -}}
{{- end -}}

{{/* The kernel of zero-loss rollouts: the kubelet must not kill a pod that still drains. 5 s is what the
     server takes to write the last messages after its drain timeout. */}}
{{- define "hgrn2.gracePeriod" -}}
{{- $needed := add (int .Values.preStopSeconds) (int .Values.server.shutdownTimeout) 5 -}}
{{- if kindIs "invalid" .Values.terminationGracePeriodSeconds -}}
{{- add $needed 10 -}}
{{- else -}}
{{- if le (int .Values.terminationGracePeriodSeconds) (int $needed) -}}
{{- fail (printf "terminationGracePeriodSeconds %d must exceed preStopSeconds + server.shutdownTimeout + 5 = %d" (int .Values.terminationGracePeriodSeconds) (int $needed)) -}}
{{- end -}}
{{- int .Values.terminationGracePeriodSeconds -}}
{{- end -}}
{{- end -}}

{{/* Flags in one place: what the chart decides, then server.flags, which may not repeat them. */}}
{{- define "hgrn2.args" -}}
{{- $own := dict
  "model" (include "hgrn2.modelPath" .)
  "device" (ternary "cuda" "cpu" .Values.gpu.enabled)
  "host" "0.0.0.0"
  "grpc-port" (int .Values.server.grpcPort)
  "http-port" (int .Values.server.httpPort)
  "max-num-seqs" (int .Values.server.maxNumSeqs)
  "log-format" .Values.server.logFormat
  "shutdown-timeout" (int .Values.server.shutdownTimeout)
  "liveness-timeout" (int .Values.server.livenessTimeout)
  "grpc-max-connection-age" (int .Values.server.maxConnectionAge)
  "grpc-max-connection-age-grace" (int .Values.server.maxConnectionAgeGrace) -}}
{{- with .Values.model.servedName }}{{ $_ := set $own "served-model-name" . }}{{ end -}}
{{- with .Values.tracing.otlpEndpoint -}}
{{- $_ := set $own "otlp-endpoint" . -}}
{{- $_ := set $own "otlp-sample-ratio" $.Values.tracing.sampleRatio -}}
{{- end -}}
{{- if .Values.server.tls.secretName -}}
{{- $_ := set $own "grpc-tls-cert" "/etc/hgrn2/tls/tls.crt" -}}
{{- $_ := set $own "grpc-tls-key" "/etc/hgrn2/tls/tls.key" -}}
{{- if .Values.server.tls.verifyClients }}{{ $_ := set $own "grpc-tls-client-ca" "/etc/hgrn2/tls/ca.crt" }}{{ end -}}
{{- else if .Values.server.tls.verifyClients -}}
{{- fail "server.tls.verifyClients needs server.tls.secretName" -}}
{{- end -}}
{{- if .Values.server.apiKeys.secretName -}}
{{- $_ := set $own "grpc-api-key-file" "/etc/hgrn2/keys/api-keys" -}}
{{- $_ := set $own "http-api-key-file" "/etc/hgrn2/keys/api-keys" -}}
{{- end -}}
{{- if and .Values.gpu.enabled (gt (int .Values.gpu.count) 1) -}}
{{- $devices := list -}}
{{- range $i := until (int .Values.gpu.count) }}{{ $devices = append $devices (printf "cuda:%d" $i) }}{{ end -}}
{{- $_ := set $own "device" (join "," $devices) -}}
{{- end -}}
{{- range $name, $value := .Values.server.flags -}}
{{- if hasKey $own $name -}}
{{- fail (printf "server.flags.%s is set by another value of this chart" $name) -}}
{{- end -}}
{{- end -}}
{{- range $name, $value := $own }}
- {{ printf "--%s=%v" $name $value | quote }}
{{- end }}
{{- range $name, $value := .Values.server.flags }}
- {{ if kindIs "float64" $value }}{{ if eq $value (floor $value) }}{{ printf "--%s=%d" $name (int64 $value) | quote }}{{ else }}{{ printf "--%s=%v" $name $value | quote }}{{ end }}{{ else }}{{ printf "--%s=%v" $name $value | quote }}{{ end }}
{{- end }}
{{- end -}}
