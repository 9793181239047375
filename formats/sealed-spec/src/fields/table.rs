//! The table: each field of a manifest, how it is treated, and why.
//!
//! Paths start at a scope: `metadata` (of the workload and of its pod template), a kind
//! (`Deployment.replicas` is `spec.replicas` of a Deployment), `pod`, `container` (init containers
//! too), `probe` (all three), `hook` (both). A row covers everything below it that has no row of
//! its own.

use Treatment::{Granted, Placeholder, Public, Refused, Sealed};

/// How a field is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Treatment {
    /// Stays readable: kubelet or a controller must act on it. It is sealed as well.
    Public,
    /// Only in the sealed document.
    Sealed,
    /// Only in the sealed document; a neutral value stands in its place outside.
    Placeholder,
    /// Public where the owner grants it, because then the host fills it in. Without the grant it is sealed,
    /// if it can be, or sealing stops.
    Granted,
    /// Not supported: `split` names it and stops.
    Refused,
}

impl Treatment {
    /// As printed in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Public => "public",
            Sealed => "sealed",
            Placeholder => "placeholder",
            Granted => "by grant",
            Refused => "refused",
        }
    }
}

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Scope and field names, joined by dots.
    pub path: &'static str,
    /// How it is treated.
    pub treatment: Treatment,
    /// Why; for refused fields also what to do instead.
    pub reason: &'static str,
}

const fn row(path: &'static str, treatment: Treatment, reason: &'static str) -> Field {
    Field { path, treatment, reason }
}

const CONTROLLER: &str = "the controller acts on it";
const SCHEDULER: &str = "the scheduler acts on it";
const KUBELET: &str = "kubelet acts on it";
const TIMING: &str = "kubelet keeps the time";
const SERVER: &str =
    "written by the API server; seal the manifest that you apply, not what `kubectl get` prints";
const NO_VOLUME: &str = "not supported: it would be the host's storage, in clear; use emptyDir, or configMap, secret, projected or downwardAPI";
const FILES: &str =
    "--with FILE seals its contents; with --grant-volume the host fills it, and kubelet has to know it";
const MOUNT: &str = "kubelet fills granted volumes; the guest mounts all others itself";
const REFERENCE: &str = "--with FILE seals the values that it leads to";
const HOST_VALUE: &str = "the host tells the value, with --grant-downward; untrusted";
const HOST_SECURITY: &str = "the guest's kernel doesn't have it; the VM is the boundary";
const SHARED_NAMESPACE: &str = "a guest has no host namespace to share; leave it out";
const NOT_YET: &str = "not supported yet; leave it out";
const GUEST_ENFORCES: &str = "the guest enforces it";

/// Every field that Sealpod knows.
pub static TABLE: &[Field] = &[
    row("manifest.apiVersion", Public, "says what the manifest is"),
    row("manifest.kind", Public, "says what the manifest is; bound into the sealed document's header"),
    row("manifest.status", Refused, SERVER),
    // Metadata of the workload and of its pod template.
    row("metadata.name", Public, "names the workload; bound into the sealed document's header"),
    row("metadata.namespace", Public, "places the workload; bound into the sealed document's header"),
    row("metadata.labels", Public, "selectors and services match them"),
    row("metadata.annotations", Public, "the cluster's tools read them"),
    row(
        "metadata.annotations.kubectl.kubernetes.io/last-applied-configuration",
        Refused,
        "it repeats the whole manifest in clear; seal the manifest that you apply, not what `kubectl get` prints",
    ),
    row(
        "metadata.annotations.io.katacontainers.config.hypervisor.cc_init_data",
        Refused,
        "the manifest is sealed already, or made for another tool; seal the original",
    ),
    row("metadata.annotations.sealpod.dev/grants", Sealed, "read at sealing, then taken out"),
    row("metadata.generateName", Refused, "a sealed document is bound to a name; use metadata.name"),
    row("metadata.creationTimestamp", Refused, SERVER),
    row("metadata.deletionTimestamp", Refused, SERVER),
    row("metadata.deletionGracePeriodSeconds", Refused, SERVER),
    row("metadata.finalizers", Refused, NOT_YET),
    row("metadata.generation", Refused, SERVER),
    row("metadata.managedFields", Refused, SERVER),
    row("metadata.ownerReferences", Refused, SERVER),
    row("metadata.resourceVersion", Refused, SERVER),
    row("metadata.selfLink", Refused, SERVER),
    row("metadata.uid", Refused, SERVER),
    // Workloads.
    row("Deployment.replicas", Public, CONTROLLER),
    row("Deployment.selector", Public, CONTROLLER),
    row("Deployment.strategy", Public, CONTROLLER),
    row("Deployment.minReadySeconds", Public, CONTROLLER),
    row("Deployment.revisionHistoryLimit", Public, CONTROLLER),
    row("Deployment.progressDeadlineSeconds", Public, CONTROLLER),
    row("Deployment.paused", Public, CONTROLLER),
    row("ReplicaSet.replicas", Public, CONTROLLER),
    row("ReplicaSet.selector", Public, CONTROLLER),
    row("ReplicaSet.minReadySeconds", Public, CONTROLLER),
    row("StatefulSet.replicas", Public, CONTROLLER),
    row("StatefulSet.selector", Public, CONTROLLER),
    row("StatefulSet.serviceName", Public, CONTROLLER),
    row("StatefulSet.podManagementPolicy", Public, CONTROLLER),
    row("StatefulSet.updateStrategy", Public, CONTROLLER),
    row("StatefulSet.minReadySeconds", Public, CONTROLLER),
    row("StatefulSet.revisionHistoryLimit", Public, CONTROLLER),
    row("StatefulSet.ordinals", Public, CONTROLLER),
    row("StatefulSet.volumeClaimTemplates", Refused, NO_VOLUME),
    row("StatefulSet.persistentVolumeClaimRetentionPolicy", Refused, NO_VOLUME),
    row("DaemonSet.selector", Public, CONTROLLER),
    row("DaemonSet.updateStrategy", Public, CONTROLLER),
    row("DaemonSet.minReadySeconds", Public, CONTROLLER),
    row("DaemonSet.revisionHistoryLimit", Public, CONTROLLER),
    row("Job.parallelism", Public, CONTROLLER),
    row("Job.completions", Public, CONTROLLER),
    row("Job.completionMode", Public, CONTROLLER),
    row("Job.activeDeadlineSeconds", Public, CONTROLLER),
    row("Job.backoffLimit", Public, CONTROLLER),
    row("Job.backoffLimitPerIndex", Public, CONTROLLER),
    row("Job.maxFailedIndexes", Public, CONTROLLER),
    row("Job.podFailurePolicy", Public, CONTROLLER),
    row("Job.podReplacementPolicy", Public, CONTROLLER),
    row("Job.successPolicy", Public, CONTROLLER),
    row("Job.selector", Public, CONTROLLER),
    row("Job.manualSelector", Public, CONTROLLER),
    row("Job.suspend", Public, CONTROLLER),
    row("Job.ttlSecondsAfterFinished", Public, CONTROLLER),
    row("CronJob.schedule", Public, CONTROLLER),
    row("CronJob.timeZone", Public, CONTROLLER),
    row("CronJob.startingDeadlineSeconds", Public, CONTROLLER),
    row("CronJob.concurrencyPolicy", Public, CONTROLLER),
    row("CronJob.suspend", Public, CONTROLLER),
    row("CronJob.successfulJobsHistoryLimit", Public, CONTROLLER),
    row("CronJob.failedJobsHistoryLimit", Public, CONTROLLER),
    // Pod.
    row("pod.restartPolicy", Public, KUBELET),
    row("pod.terminationGracePeriodSeconds", Public, KUBELET),
    row("pod.activeDeadlineSeconds", Public, KUBELET),
    row("pod.hostname", Public, "the cluster's DNS needs it"),
    row("pod.subdomain", Public, "the cluster's DNS needs it"),
    row("pod.setHostnameAsFQDN", Public, "the cluster's DNS needs it"),
    row("pod.hostAliases", Sealed, "the guest writes its own /etc/hosts"),
    row(
        "pod.dnsPolicy",
        Placeholder,
        "`None` becomes `Default` outside, because the name servers are sealed; others stay",
    ),
    row("pod.dnsConfig", Sealed, "the guest writes its own resolv.conf"),
    row("pod.nodeSelector", Public, SCHEDULER),
    row("pod.nodeName", Public, SCHEDULER),
    row("pod.affinity", Public, SCHEDULER),
    row("pod.tolerations", Public, SCHEDULER),
    row("pod.topologySpreadConstraints", Public, SCHEDULER),
    row("pod.readinessGates", Public, SCHEDULER),
    row("pod.schedulingGates", Public, SCHEDULER),
    row("pod.priorityClassName", Public, SCHEDULER),
    row("pod.priority", Public, SCHEDULER),
    row("pod.preemptionPolicy", Public, SCHEDULER),
    row("pod.schedulerName", Public, SCHEDULER),
    row("pod.runtimeClassName", Public, "leads to the Kata runtime"),
    row("pod.overhead", Public, SCHEDULER),
    row("pod.os", Public, "only linux"),
    row("pod.shareProcessNamespace", Public, "kubelet asks for it; the guest goes by the sealed one"),
    row("pod.serviceAccountName", Public, "the API server checks it"),
    row("pod.imagePullSecrets", Public, "for the placeholder image; the guest has its own, sealed"),
    row(
        "pod.automountServiceAccountToken",
        Granted,
        "false unless granted: the token's files are the host's (--grant-service-account-token)",
    ),
    row(
        "pod.enableServiceLinks",
        Granted,
        "false unless granted: those variables are the host's (--grant-service-links)",
    ),
    row("pod.volumes.name", Granted, MOUNT),
    row("pod.volumes.emptyDir", Sealed, "the guest makes it in its own memory or encrypted scratch"),
    row("pod.volumes.configMap", Granted, FILES),
    row("pod.volumes.secret", Granted, FILES),
    row("pod.volumes.projected", Granted, FILES),
    row("pod.volumes.downwardAPI", Granted, "only the host can fill it, with --grant-volume; untrusted"),
    row("pod.volumes.csi", Refused, NO_VOLUME),
    row("pod.volumes.ephemeral", Refused, NO_VOLUME),
    row("pod.volumes.hostPath", Refused, NO_VOLUME),
    row("pod.volumes.image", Refused, NO_VOLUME),
    row("pod.volumes.iscsi", Refused, NO_VOLUME),
    row("pod.volumes.nfs", Refused, NO_VOLUME),
    row("pod.volumes.persistentVolumeClaim", Refused, NO_VOLUME),
    row("pod.securityContext.runAsUser", Sealed, GUEST_ENFORCES),
    row("pod.securityContext.runAsGroup", Sealed, GUEST_ENFORCES),
    row("pod.securityContext.runAsNonRoot", Sealed, GUEST_ENFORCES),
    row("pod.securityContext.fsGroup", Sealed, GUEST_ENFORCES),
    row("pod.securityContext.fsGroupChangePolicy", Sealed, GUEST_ENFORCES),
    row("pod.securityContext.supplementalGroups", Sealed, GUEST_ENFORCES),
    row("pod.securityContext.supplementalGroupsPolicy", Sealed, GUEST_ENFORCES),
    row("pod.securityContext.sysctls", Sealed, GUEST_ENFORCES),
    row("pod.securityContext.seccompProfile.type", Sealed, GUEST_ENFORCES),
    row(
        "pod.securityContext.seccompProfile.localhostProfile",
        Refused,
        "a node's profiles don't exist in a guest; use RuntimeDefault",
    ),
    row("pod.securityContext.seLinuxOptions", Refused, HOST_SECURITY),
    row("pod.securityContext.seLinuxChangePolicy", Refused, HOST_SECURITY),
    row("pod.securityContext.appArmorProfile", Refused, HOST_SECURITY),
    row("pod.securityContext.windowsOptions", Refused, "only linux"),
    row("pod.serviceAccount", Refused, "deprecated; use serviceAccountName"),
    row("pod.hostNetwork", Refused, SHARED_NAMESPACE),
    row("pod.hostPID", Refused, SHARED_NAMESPACE),
    row("pod.hostIPC", Refused, SHARED_NAMESPACE),
    row("pod.hostUsers", Refused, NOT_YET),
    row(
        "pod.ephemeralContainers",
        Refused,
        "`kubectl debug` adds them to a running pod; seal with --grant-debug to allow the owner's own",
    ),
    row("pod.resourceClaims", Refused, NOT_YET),
    row("pod.resources", Refused, "not supported yet; write resources for each container"),
    // Containers and init containers.
    row("container.name", Public, "kubelet and `kubectl` name containers by it"),
    row("container.image", Placeholder, "outside, all containers have the placeholder image"),
    row("container.imagePullPolicy", Placeholder, "outside always IfNotPresent; the guest pulls by digest"),
    row("container.command", Sealed, "what runs is the owner's secret"),
    row("container.args", Sealed, "what runs is the owner's secret"),
    row("container.workingDir", Sealed, "what runs is the owner's secret"),
    row(
        "container.env.name",
        Granted,
        "kubelet has to know those whose value the host tells; the owner's secret otherwise",
    ),
    row("container.env.value", Sealed, "the owner's secret"),
    row(
        "container.env.valueFrom.secretKeyRef",
        Sealed,
        "--with FILE seals the value, or the guest fetches it: --from-broker NAME/KEY=kbs:///…",
    ),
    row("container.env.valueFrom.configMapKeyRef", Sealed, REFERENCE),
    row("container.env.valueFrom.fieldRef", Granted, HOST_VALUE),
    row("container.env.valueFrom.resourceFieldRef", Granted, HOST_VALUE),
    row("container.env.valueFrom.fileKeyRef", Refused, "not supported yet; use secretKeyRef and --with FILE"),
    row("container.envFrom.prefix", Sealed, REFERENCE),
    row("container.envFrom.secretRef", Sealed, REFERENCE),
    row("container.envFrom.configMapRef", Sealed, REFERENCE),
    row("container.ports", Public, "services and network policies use them"),
    row(
        "container.resources.limits",
        Public,
        "the scheduler and the runtime size the VM by them; the guest enforces the sealed ones",
    ),
    row(
        "container.resources.requests",
        Public,
        "the scheduler and the runtime size the VM by them; the guest enforces the sealed ones",
    ),
    row("container.resources.claims", Refused, NOT_YET),
    row(
        "container.resizePolicy",
        Public,
        "kubelet acts on it; the guest goes by the sealed limits and grants",
    ),
    row("container.volumeMounts.name", Granted, MOUNT),
    row("container.volumeMounts.mountPath", Granted, MOUNT),
    row("container.volumeMounts.readOnly", Granted, MOUNT),
    row("container.volumeMounts.subPath", Sealed, "the guest mounts it itself; granted volumes have none"),
    row("container.volumeMounts.subPathExpr", Sealed, "becomes a subPath, from sealed variables"),
    row("container.volumeMounts.mountPropagation", Refused, NOT_YET),
    row("container.volumeMounts.recursiveReadOnly", Refused, NOT_YET),
    row("container.volumeDevices", Refused, NO_VOLUME),
    row("container.lifecycle.stopSignal", Public, "kubelet asks for it; the guest goes by the sealed one"),
    row("container.restartPolicyRules", Refused, NOT_YET),
    row("container.restartPolicy", Public, "kubelet starts sidecars again; the guest goes by the sealed one"),
    row("container.securityContext.runAsUser", Sealed, GUEST_ENFORCES),
    row("container.securityContext.runAsGroup", Sealed, GUEST_ENFORCES),
    row("container.securityContext.runAsNonRoot", Sealed, GUEST_ENFORCES),
    row("container.securityContext.privileged", Sealed, GUEST_ENFORCES),
    row("container.securityContext.allowPrivilegeEscalation", Sealed, GUEST_ENFORCES),
    row("container.securityContext.readOnlyRootFilesystem", Sealed, GUEST_ENFORCES),
    row("container.securityContext.capabilities", Sealed, GUEST_ENFORCES),
    row("container.securityContext.procMount", Sealed, GUEST_ENFORCES),
    row("container.securityContext.seccompProfile.type", Sealed, GUEST_ENFORCES),
    row(
        "container.securityContext.seccompProfile.localhostProfile",
        Refused,
        "a node's profiles don't exist in a guest; use RuntimeDefault",
    ),
    row("container.securityContext.seLinuxOptions", Refused, HOST_SECURITY),
    row("container.securityContext.appArmorProfile", Refused, HOST_SECURITY),
    row("container.securityContext.windowsOptions", Refused, "only linux"),
    row("container.terminationMessagePath", Sealed, "the guest keeps its own termination log"),
    row("container.terminationMessagePolicy", Public, KUBELET),
    row("container.stdin", Public, "kubelet opens the stream; the guest decides by the sealed one"),
    row("container.stdinOnce", Public, "kubelet opens the stream; the guest decides by the sealed one"),
    row("container.tty", Public, "kubelet opens the stream; the guest decides by the sealed one"),
    // Probes and hooks.
    row(
        "probe.exec",
        Placeholder,
        "outside, the command is [\"/sealpod\", \"probe\", \"<container>/<which>\"]",
    ),
    row("probe.httpGet", Public, "kubelet makes the request, its headers included"),
    row("probe.tcpSocket", Public, "kubelet makes the connection"),
    row("probe.grpc", Public, "kubelet makes the request"),
    row("probe.initialDelaySeconds", Public, TIMING),
    row("probe.timeoutSeconds", Public, TIMING),
    row("probe.periodSeconds", Public, TIMING),
    row("probe.successThreshold", Public, TIMING),
    row("probe.failureThreshold", Public, TIMING),
    row("probe.terminationGracePeriodSeconds", Public, TIMING),
    row(
        "hook.exec",
        Placeholder,
        "outside, the command is [\"/sealpod\", \"probe\", \"<container>/<which>\"]",
    ),
    row("hook.httpGet", Public, "kubelet makes the request, its headers included"),
    row("hook.sleep", Public, TIMING),
    row("hook.tcpSocket", Refused, "Kubernetes never implemented it; use httpGet or exec"),
];
