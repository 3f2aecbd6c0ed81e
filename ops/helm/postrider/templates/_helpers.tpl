{{- define "postrider.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name }}{{ end }}
{{- end }}

{{- define "postrider.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "postrider.labels" -}}
{{ include "postrider.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* A setting's value as its environment variable takes it: the items of a list with commas. */}}
{{- define "postrider.value" -}}
{{- if kindIs "slice" . }}{{ join "," . }}{{ else }}{{ toString . }}{{ end }}
{{- end }}

{{/* The pod, which both kinds of workload share. */}}
{{- define "postrider.pod" -}}
{{- $postgres := eq .Values.store "postgres" }}
metadata:
  labels:
    {{- include "postrider.labels" . | nindent 4 }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .Values.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  automountServiceAccountToken: false
  enableServiceLinks: false
  # Twice the grace of a stop, and time to close the store.
  terminationGracePeriodSeconds: {{ add (mul 2 (int .Values.stopGraceSeconds)) 15 }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    fsGroup: 65532
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile:
      type: RuntimeDefault
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: postrider
      {{- if .Values.image.digest }}
      image: "{{ .Values.image.repository }}@{{ .Values.image.digest }}"
      {{- else }}
      image: "{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}"
      {{- end }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: [serve]
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities:
          drop: [ALL]
      env:
        # A folder of the server's own, because a volume belongs to root, and the server makes its folder private.
        - name: POSTRIDER_DATA_DIR
          value: /var/lib/postrider/data
        - name: POSTRIDER_LISTEN
          value: 0.0.0.0:8080
        - name: POSTRIDER_METRICS_LISTEN
          value: {{ if .Values.metrics.enabled }}{{ printf "0.0.0.0:%d" (int .Values.metrics.port) }}{{ else }}"off"{{ end }}
        - name: POSTRIDER_LOG_FORMAT
          value: json
        - name: POSTRIDER_STOP_GRACE
          value: {{ printf "%ds" (int .Values.stopGraceSeconds) }}
        {{- if .Values.masterKeySecret.name }}
        - name: POSTRIDER_MASTER_KEY_FILE
          value: /run/secrets/master/{{ .Values.masterKeySecret.key }}
        {{- end }}
        {{- if $postgres }}
        - name: POSTRIDER_DATABASE_URL
          value: {{ .Values.database.url | quote }}
        {{- with .Values.database.directUrl }}
        - name: POSTRIDER_DATABASE_DIRECT_URL
          value: {{ . | quote }}
        {{- end }}
        {{- if .Values.database.passwordSecret.name }}
        - name: POSTRIDER_DATABASE_PASSWORD_FILE
          value: /run/secrets/database/{{ .Values.database.passwordSecret.key }}
        {{- end }}
        {{- end }}
        {{- if .Values.tlsSecret }}
        - name: POSTRIDER_TLS_CERT_FILE
          value: /run/secrets/tls/tls.crt
        - name: POSTRIDER_TLS_KEY_FILE
          value: /run/secrets/tls/tls.key
        {{- end }}
        {{- range $name, $value := .Values.settings }}
        - name: {{ printf "POSTRIDER_%s" (upper $name) }}
          value: {{ include "postrider.value" $value | quote }}
        {{- end }}
      ports:
        - name: api
          containerPort: 8080
        {{- if .Values.metrics.enabled }}
        - name: metrics
          containerPort: {{ .Values.metrics.port }}
        {{- end }}
      # A first start may have to migrate a large store.
      startupProbe:
        {{- include "postrider.health" . | nindent 8 }}
        periodSeconds: 5
        failureThreshold: 120
      readinessProbe:
        {{- include "postrider.health" . | nindent 8 }}
        periodSeconds: 5
        timeoutSeconds: 5
      # Not the health: a restart does not bring a database back.
      livenessProbe:
        tcpSocket:
          port: api
        periodSeconds: 10
        failureThreshold: 6
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
      volumeMounts:
        - name: data
          mountPath: /var/lib/postrider
        - name: tmp
          mountPath: /tmp
        {{- if .Values.masterKeySecret.name }}
        - name: master
          mountPath: /run/secrets/master
          readOnly: true
        {{- end }}
        {{- if and $postgres .Values.database.passwordSecret.name }}
        - name: database
          mountPath: /run/secrets/database
          readOnly: true
        {{- end }}
        {{- if .Values.tlsSecret }}
        - name: tls
          mountPath: /run/secrets/tls
          readOnly: true
        {{- end }}
  volumes:
    - name: tmp
      emptyDir: {}
    {{- if $postgres }}
    # A socket and a lock.
    - name: data
      emptyDir: {}
    {{- end }}
    {{- if .Values.masterKeySecret.name }}
    - name: master
      secret:
        secretName: {{ .Values.masterKeySecret.name }}
        defaultMode: 0440
    {{- end }}
    {{- if and $postgres .Values.database.passwordSecret.name }}
    - name: database
      secret:
        secretName: {{ .Values.database.passwordSecret.name }}
        defaultMode: 0440
    {{- end }}
    {{- if .Values.tlsSecret }}
    - name: tls
      secret:
        secretName: {{ .Values.tlsSecret }}
        defaultMode: 0440
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
  {{- if $postgres }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "postrider.selector" . | nindent 10 }}
  {{- end }}
{{- end }}

{{- define "postrider.health" -}}
httpGet:
  path: /v1/health
  port: api
  {{- if .Values.tlsSecret }}
  scheme: HTTPS
  {{- end }}
{{- end }}
