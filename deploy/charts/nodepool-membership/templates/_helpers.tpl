{{- define "npm.name" -}}
{{ .Values.fullnameOverride | default (printf "%s-operator" .Release.Name) | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{- define "npm.selector" -}}
app.kubernetes.io/name: nodepool-membership
app.kubernetes.io/component: operator
{{- end -}}

{{- define "npm.labels" -}}
app.kubernetes.io/name: nodepool-membership
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/part-of: nodepool-membership
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{- define "npm.metadata" -}}
name: {{ include "npm.name" . }}
namespace: {{ .Release.Namespace }}
labels:
  {{- include "npm.labels" . | nindent 2 }}
{{- end -}}

{{- define "npm.clusterMetadata" -}}
name: {{ include "npm.name" . }}
labels:
  {{- include "npm.labels" . | nindent 2 }}
{{- end -}}

{{- define "npm.subjects" -}}
- kind: ServiceAccount
  name: {{ include "npm.name" . }}
  namespace: {{ .Release.Namespace }}
{{- end -}}

{{- define "npm.image" -}}
{{ .Values.image.repository }}{{ if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end -}}
