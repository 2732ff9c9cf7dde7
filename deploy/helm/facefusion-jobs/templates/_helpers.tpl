{{- define "ffjobs.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "ffjobs.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "ffjobs.labels" -}}
{{ include "ffjobs.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{- define "ffjobs.serviceAccount" -}}
{{ if .Values.serviceAccount.create }}{{ .Values.serviceAccount.name | default (include "ffjobs.name" .) }}{{ else }}{{ .Values.serviceAccount.name | default "default" }}{{ end }}
{{- end }}

{{- define "ffjobs.secret" -}}
{{ if .Values.secretName }}{{ .Values.secretName }}{{ else if .Values.secretValues }}{{ include "ffjobs.name" . }}{{ else }}{{ fail "give `secretName`: a Secret with FFJOBS_STORE and FFJOBS_BLOBS in it (or `secretValues`, for a trial)" }}{{ end }}
{{- end }}

{{- /* What the pods of both kinds share. Takes root, component, kind (api or worker values) and role. */ -}}
{{- define "ffjobs.podSpec" -}}
serviceAccountName: {{ include "ffjobs.serviceAccount" .root }}
automountServiceAccountToken: false
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: { type: RuntimeDefault }
{{- with .kind.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .kind.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .kind.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "ffjobs.container" -}}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
args: [serve, --role, {{ .component }}]
env:
  - name: FFJOBS_NODE
    valueFrom: { fieldRef: { fieldPath: metadata.name } }
  {{- range $name, $value := merge (dict) .kind.settings .root.Values.settings }}
  - name: {{ $name }}
    value: {{ $value | quote }}
  {{- end }}
envFrom:
  - secretRef: { name: {{ include "ffjobs.secret" .root }} }
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: { drop: [ALL] }
{{- end }}

{{- define "ffjobs.annotations" -}}
checksum/secret: {{ toYaml .Values.secretValues | sha256sum }}
{{- end }}
