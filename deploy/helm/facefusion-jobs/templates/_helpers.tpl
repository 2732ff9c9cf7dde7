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
  {{- range $name, $value := merge (dict) .kind.settings .root.Values.settings (include "ffjobs.certificateSettings" . | fromYaml) }}
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

{{- /* Which Secrets a kind of pod has as files, by the folder below /etc/facefusion-jobs: the key of the API is the API's alone, that of marks the
       workers'. Who callers are has to be known to both. */ -}}
{{- define "ffjobs.fileSecrets" -}}
{{- $given := .root.Values.certificates }}
{{- $wanted := dict "files" .root.Values.filesSecret "client-ca" $given.clientCa }}
{{- if eq .component "api" }}{{ $_ := set $wanted "tls" $given.tls }}{{ else }}{{ $_ := set $wanted "marks" $given.marks }}{{ end }}
{{- range $folder, $secret := $wanted }}
{{- if $secret }}
{{ $folder }}: {{ $secret }}
{{- end }}
{{- end }}
{{- end }}

{{- define "ffjobs.certificateSettings" -}}
{{- range $folder, $_ := include "ffjobs.fileSecrets" . | fromYaml }}
{{- $at := printf "/etc/facefusion-jobs/%s" $folder }}
{{- if eq $folder "tls" }}
FFJOBS_TLS_CERT: {{ $at }}/tls.crt
FFJOBS_TLS_KEY: {{ $at }}/tls.key
{{- else if eq $folder "client-ca" }}
FFJOBS_TLS_CLIENT_CA: {{ $at }}/ca.crt
{{- else if eq $folder "marks" }}
FFJOBS_PROVENANCE: c2pa
FFJOBS_PROVENANCE_CERT: {{ $at }}/tls.crt
FFJOBS_PROVENANCE_KEY: {{ $at }}/tls.key
{{- if $.root.Values.certificates.marksTrust }}
FFJOBS_PROVENANCE_TRUST: {{ $at }}/ca.crt
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "ffjobs.fileMounts" -}}
{{- range $folder, $_ := include "ffjobs.fileSecrets" . | fromYaml }}
- { name: {{ $folder }}, mountPath: /etc/facefusion-jobs/{{ $folder }}, readOnly: true }
{{- end }}
{{- end }}

{{- /* Mode 0440 (288): readable by the group of the pod, which is the service's, and by nobody else. */ -}}
{{- define "ffjobs.fileVolumes" -}}
{{- range $folder, $secret := include "ffjobs.fileSecrets" . | fromYaml }}
- name: {{ $folder }}
  secret: { secretName: {{ $secret }}, defaultMode: 288 }
{{- end }}
{{- end }}

{{- define "ffjobs.annotations" -}}
checksum/secret: {{ toYaml .Values.secretValues | sha256sum }}
{{- end }}
