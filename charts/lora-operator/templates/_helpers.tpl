{{- define "lora-operator.serviceAccount" -}}
{{- .Values.serviceAccount.name | default .Release.Name -}}
{{- end -}}

{{- define "lora-operator.labels" -}}
app.kubernetes.io/name: lora-operator
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: controller
app.kubernetes.io/part-of: lora-operator
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end -}}

{{- define "lora-operator.selector" -}}
app.kubernetes.io/name: lora-operator
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: controller
{{- end -}}

{{/* repository@digest, or repository:tag with the chart's version as default */}}
{{- define "lora-operator.image" -}}
{{- if .image.digest -}}{{ .image.repository }}@{{ .image.digest }}{{- else -}}{{ .image.repository }}:{{ .image.tag | default .version }}{{- end -}}
{{- end -}}

{{/* What the operator may do where LoRA objects live: the same rules as ClusterRole or as Role of each watched namespace. */}}
{{- define "lora-operator.rules" -}}
- apiGroups: [loraops.dev]
  resources: [loraadapters, loradeployments]
  verbs: [get, list, watch, patch]
- apiGroups: [loraops.dev]
  resources: [loraadapters/status, loradeployments/status]
  verbs: [patch]
- apiGroups: [loraops.dev]
  resources: [loraadapters/finalizers, loradeployments/finalizers]
  verbs: [update]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, patch]
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get]
- apiGroups: [""]
  resources: [events]
  verbs: [create, patch]
# Whether the ConfigMap of a validation suite is there (its content is never read), and our own `<name>-analysis`.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, create, patch]
- apiGroups: [apps]
  resources: [deployments, controllerrevisions]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [get, list, watch]
- apiGroups: [gateway.networking.k8s.io]
  resources: [httproutes]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [ingresses]
  verbs: [get, list, watch, create, patch, delete]
{{- end -}}
