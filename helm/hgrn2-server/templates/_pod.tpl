{{/* The pod, the same for Deployment and StatefulSet. */}}
{{- define "hgrn2.pod" -}}
metadata:
  labels:
    {{- include "hgrn2.labels" . | nindent 4 }}
    # Routers then read the vllm: metrics.
    inference.networking.k8s.io/engine-type: vllm
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    kubectl.kubernetes.io/default-container: server
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "hgrn2.serviceAccountName" . }}
  automountServiceAccountToken: false
  # A Service named hgrn2-http would set HGRN2_HTTP_PORT, which is one of the server's settings.
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ include "hgrn2.gracePeriod" . }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with .Values.gpu.runtimeClassName }}
  runtimeClassName: {{ . }}
  {{- end }}
  {{- with .Values.image.pullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    {{- toYaml .Values.podSecurityContext | nindent 4 }}
  {{- if eq .Values.model.source "init" }}
  initContainers:
    - name: model
      image: {{ required "model.init.image is required with model.source init" .Values.model.init.image }}
      {{- with .Values.model.init.command }}
      command:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .Values.model.init.args }}
      args:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .Values.model.init.env }}
      env:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      securityContext:
        {{- toYaml .Values.securityContext | nindent 8 }}
      resources:
        {{- toYaml (default (dict "requests" (dict "cpu" "500m" "memory" "256Mi") "limits" (dict "memory" "1Gi")) .Values.model.init.resources) | nindent 8 }}
      volumeMounts:
        - {name: models, mountPath: /models}
        - {name: tmp, mountPath: /tmp}
  {{- end }}
  containers:
    - name: server
      image: {{ include "hgrn2.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args:
        {{- include "hgrn2.args" . | nindent 8 }}
      {{- with .Values.server.extraEnv }}
      env:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      ports:
        - {name: grpc, containerPort: {{ .Values.server.grpcPort }}, protocol: TCP}
        - {name: http, containerPort: {{ .Values.server.httpPort }}, protocol: TCP}
      # The ports open when the model is loaded.
      startupProbe:
        {{- if .Values.server.tls.secretName }}
        httpGet: {path: /ready, port: http}
        {{- else }}
        grpc: {port: {{ .Values.server.grpcPort }}, service: hgrn2.v1.Inference}
        {{- end }}
        {{- toYaml .Values.probes.startup | nindent 8 }}
      # NOT_SERVING from the first moment of a drain.
      readinessProbe:
        {{- if .Values.server.tls.secretName }}
        httpGet: {path: /ready, port: http}
        {{- else }}
        grpc: {port: {{ .Values.server.grpcPort }}, service: hgrn2.v1.Inference}
        {{- end }}
        {{- toYaml .Values.probes.readiness | nindent 8 }}
      # The engine's heartbeat, whatever the load. Not gRPC health: that is NOT_SERVING during a drain,
      # and a pod that drains must not be restarted.
      livenessProbe:
        httpGet: {path: /health, port: http}
        {{- toYaml .Values.probes.liveness | nindent 8 }}
      {{- if gt (int .Values.preStopSeconds) 0 }}
      lifecycle:
        preStop:
          sleep: {seconds: {{ .Values.preStopSeconds }}}
      {{- end }}
      securityContext:
        {{- toYaml .Values.securityContext | nindent 8 }}
      resources:
        {{- $resources := deepCopy .Values.resources }}
        {{- if .Values.gpu.enabled }}
        {{- $limits := default dict $resources.limits }}
        {{- $_ := set $limits .Values.gpu.resourceName (int .Values.gpu.count) }}
        {{- $_ := set $resources "limits" $limits }}
        {{- end }}
        {{- toYaml $resources | nindent 8 }}
      volumeMounts:
        - {name: tmp, mountPath: /tmp}
        {{- if .Values.server.tls.secretName }}
        - {name: tls, mountPath: /etc/hgrn2/tls, readOnly: true}
        {{- end }}
        {{- if .Values.server.apiKeys.secretName }}
        - {name: api-keys, mountPath: /etc/hgrn2/keys, readOnly: true}
        {{- end }}
        {{- if ne .Values.model.source "embedded" }}
        - {name: models, mountPath: /models, readOnly: true}
        {{- end }}
  volumes:
    - name: tmp
      emptyDir: {sizeLimit: 256Mi}
    {{- with .Values.server.tls.secretName }}
    - name: tls
      secret: {secretName: {{ . }}, defaultMode: 0440}
    {{- end }}
    {{- if .Values.server.apiKeys.secretName }}
    - name: api-keys
      secret:
        secretName: {{ .Values.server.apiKeys.secretName }}
        defaultMode: 0440
        items: [{key: {{ .Values.server.apiKeys.key }}, path: api-keys}]
    {{- end }}
    {{- if eq .Values.model.source "pvc" }}
    - name: models
      persistentVolumeClaim:
        claimName: {{ required "model.pvc.claimName is required with model.source pvc" .Values.model.pvc.claimName }}
        readOnly: true
    {{- else if eq .Values.model.source "image" }}
    - name: models
      image:
        reference: {{ required "model.image.reference is required with model.source image" .Values.model.image.reference }}
        pullPolicy: {{ .Values.model.image.pullPolicy }}
    {{- else if eq .Values.model.source "init" }}
    - name: models
      emptyDir: {sizeLimit: {{ .Values.model.init.sizeLimit }}}
    {{- else if eq .Values.model.source "volume" }}
    - name: models
      {{- toYaml (required "model.volume is required with model.source volume" .Values.model.volume) | nindent 6 }}
    {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.topologySpread }}
  topologySpreadConstraints:
    {{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
    - maxSkew: 1
      topologyKey: {{ $key }}
      whenUnsatisfiable: {{ $.Values.topologySpread }}
      labelSelector:
        matchLabels:
          {{- include "hgrn2.selectorLabels" $ | nindent 10 }}
      # Count the new pods of a rollout by themselves.
      matchLabelKeys: [{{ ternary "controller-revision-hash" "pod-template-hash" (eq $.Values.workload.kind "StatefulSet") }}]
    {{- end }}
  {{- end }}
{{- end -}}
