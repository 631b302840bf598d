{{/* The Service, the lease and the default of KNOCK_URL have this name: one operator in a namespace. */}}
{{- define "servicechain.name" -}}servicechain-operator{{- end }}

{{/* Cluster-wide objects of this release; operators of single namespaces may stand side by side. */}}
{{- define "servicechain.clusterName" -}}servicechain-operator-{{ .Release.Namespace }}{{- end }}

{{- define "servicechain.selector" -}}
app.kubernetes.io/name: servicechain-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "servicechain.labels" -}}
{{ include "servicechain.selector" . }}
app.kubernetes.io/part-of: servicechain
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "servicechain.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (include "servicechain.name" .) }}
{{- end }}

{{/* Of an image that belongs to this project: (list $ "gateway"). */}}
{{- define "servicechain.ownImage" -}}
{{- $root := index . 0 -}}
{{- $registry := $root.Values.images.registry -}}
{{- if $registry }}{{ $registry }}/{{ end -}}
{{- include "servicechain.image" (list $root (index $root.Values.images (index . 1))) -}}
{{- end }}

{{/* repository@digest, or repository:tag. */}}
{{- define "servicechain.image" -}}
{{- $root := index . 0 -}}
{{- with index . 1 -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $root.Chart.AppVersion }}{{ end -}}
{{- end -}}
{{- end }}

{{/* The same of a database, which has no version of ours: (list $ "images.redis" .Values.images.redis). */}}
{{- define "servicechain.databaseImage" -}}
{{- $image := index . 2 -}}
{{- if not (or $image.tag $image.digest) }}{{ fail (printf "%s needs a tag or a digest: this chart's version is none of a database" (index . 1)) }}{{ end -}}
{{- include "servicechain.image" (list (index . 0) $image) -}}
{{- end }}

{{/* 15=image,17=image */}}
{{- define "servicechain.postgresImages" -}}
{{- $images := list -}}
{{- range $major, $image := .Values.images.postgres -}}
{{- /* helm takes null for absent when a release is made, and for null when its values are used again. */ -}}
{{- if $image -}}
{{- $name := include "servicechain.databaseImage" (list $ (printf "images.postgres.%s" $major) $image) -}}
{{- $images = append $images (printf "%s=%s" $major $name) -}}
{{- end -}}
{{- end -}}
{{- join "," $images -}}
{{- end }}

{{/* What the operator does to the objects of chains, and nothing else. */}}
{{- define "servicechain.rules" -}}
- apiGroups: [servicechain.dev]
  resources: [servicechains]
  verbs: [get, list, watch]
- apiGroups: [servicechain.dev]
  resources: [revocations]
  verbs: [list, watch]
- apiGroups: [servicechain.dev]
  resources: [servicechains/status, revocations/status]
  verbs: [patch]
# By name only: no list, no watch.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, create, patch, delete]
# The bundle of keys is replaced, never patched.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, list, watch, create, update, patch, delete]
- apiGroups: [""]
  resources: [services, serviceaccounts]
  verbs: [get, list, watch, create, patch, delete]
# Volumes are never deleted by the operator.
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, watch, create, patch]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
- apiGroups: [apps]
  resources: [deployments, statefulsets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [apps]
  resources: [replicasets]
  verbs: [list]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
# Why a volume does not bind or a pod is not made stands only in events.
- apiGroups: [""]
  resources: [events]
  verbs: [list]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}
