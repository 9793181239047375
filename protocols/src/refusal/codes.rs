//! The table of codes. A code never changes its meaning; a new meaning is a new code.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

macro_rules! codes {
    ($($variant:ident $name:literal, $title:literal, $explanation:literal;)*) => {
        /// A stable refusal code, printed in SCREAMING_SNAKE_CASE.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Code { $(#[doc = $title] $variant,)* }

        impl Code {
            /// Every code, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name on the wire.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// A few words.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }

            /// What it means and what to do.
            pub const fn explanation(self) -> &'static str {
                match self { $(Self::$variant => $explanation,)* }
            }
        }

        impl FromStr for Code {
            type Err = UnknownCode;

            fn from_str(name: &str) -> Result<Self, UnknownCode> {
                match name { $($name => Ok(Self::$variant),)* _ => Err(UnknownCode) }
            }
        }
    };
}

/// A name that is in no row of the table.
#[derive(Debug, Error)]
#[error("unknown refusal code; run 'sealpod explain' without a code to list them")]
pub struct UnknownCode;

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

codes! {
    // Attestation and release, said by the broker.
    LaunchDigest "LAUNCH_DIGEST", "the guest's launch digest is not in the release policy",
        "The firmware, kernel, initrd, kernel command line or vCPU count that the host launched are not what the policy allows. Run 'sealpod measure' on the guest image that is deployed and compare; if the image is meant to change, push a policy with its digest. If nobody changed it, the host launched something else.";
    SpecDigest "SPEC_DIGEST", "the key belongs to another sealed spec",
        "The guest proved which sealed spec its initdata names, and the key it asks for is registered for a different one. Either the ConfigMap or annotation was mixed with another sealing, or a guest asks for a key that isn't its own. Deploy the file that 'sealpod seal' wrote, unchanged.";
    HostData "HOST_DATA", "the initdata sent is not the one the guest was launched with",
        "The SHA-256 of the initdata document in the attestation request differs from HOST_DATA in the signed report, or the guest was launched with other initdata than the key was registered with. The launch bound other initdata. Redeploy the sealed file; if it repeats, the guest or something between it and the broker is lying.";
    TeeKind "TEE_KIND", "this kind of TEE is not allowed by the release policy",
        "The evidence is genuine for a TEE that the policy does not list; emulated evidence only ever matches 'snp-emulated'. Add the kind to the policy's 'tee' list if it is meant, or schedule the pod on the hardware the policy names.";
    Tcb "TCB", "the platform's firmware is older than the policy's minimum",
        "One component of the reported, committed or launch TCB is below minimum_tcb. Ask the platform team to update the SEV firmware or microcode, or lower the minimum if you accept the known weaknesses of that version.";
    GuestPolicy "GUEST_POLICY", "the guest's launch policy is weaker than allowed",
        "The SNP guest policy in the report permits debugging, migration, SMT or something else that the release policy forbids. The host launched the VM with that policy; have it launched with the stricter one.";
    Vmpl "VMPL", "the report was asked for at an unexpected privilege level",
        "The report's VMPL is not the one that the release policy names. The agent asks at the level it runs at; with an SVSM that level isn't 0, and the policy has to say so.";
    RevisionRetired "REVISION_RETIRED", "this revision was retired",
        "The owner retired this revision of the lineage, so its key is not released any more. Deploy the current revision; a retirement can't be undone, only followed by a new sealing.";
    RevisionMinimum "REVISION_MINIMUM", "this revision is below the policy's minimum",
        "The release policy's minimum_revision is higher than the revision this guest was started with. Deploy a newer sealed file, or push a policy with a lower minimum if rolling back is intended.";
    Resource "RESOURCE", "no such resource for this guest",
        "The resource does not exist, or this guest may not have it; the answer is the same for both. Check that 'sealpod push' succeeded for this sealing, and that the kbs:/// address is in the owner's own repository.";
    PolicyMissing "POLICY_MISSING", "the lineage has no release policy",
        "A key is registered but no policy says who may have it, so nobody may. Run 'sealpod push' with the policy for this lineage.";
    ReleaseLimit "RELEASE_LIMIT", "the key was released as often as its policy allows",
        "The release policy says 'once', or so many guests within a time, and other guests had those. A guest that lost its answer and asks again is the same guest; one that was started again is another. Seal again to get a new key, wait until the window has passed, or push a policy that allows more.";
    Evidence "EVIDENCE", "the evidence can't be had or read",
        "The attestation report or its certificates are malformed, of an unknown version, have reserved bits set, or the firmware gave none. If agent and platform are supported versions, keep the broker's audit record and report it.";
    Signature "SIGNATURE", "the report's signature is wrong",
        "The report is not signed by the certificate that came with it. It was changed, or belongs to another chip. A genuine platform doesn't do this.";
    CertificateChain "CERTIFICATE_CHAIN", "the certificates don't lead to a trusted root",
        "The chain from the chip's certificate to AMD's root (or to a root that this broker was configured to trust) is broken, incomplete, expired or names another product. For the demo and tests, the emulator's root has to be in the broker's configuration. For PEF: the blob is not enrolled, denied, or its machine is not trusted.";
    Collateral "COLLATERAL", "certificates needed to check the report are missing",
        "Neither the guest nor the broker has the chip's certificate, its chain or a revocation list in force. Have the host provide them in the certificates table, or get them with 'sealpod collateral fetch' and import them into the broker ('sealpod-broker collateral import'); for 'sealpod appraise', 'sealpod collateral import'.";
    Nonce "NONCE", "the nonce is not this session's",
        "The attestation request repeats an old nonce or one of another session. Each nonce works once, for five minutes. The agent starts a new handshake by itself; if it keeps failing, something replays its traffic.";
    Binding "BINDING", "the report is bound to something else",
        "report_data in the signed report is not the hash of this session's nonce and public key. The report was made for another key or another session: someone relays evidence.";
    Session "SESSION", "the session is unknown, expired or busy",
        "The cookie names no session, the session is older than five minutes, or a second attestation was sent while the first one was running. Start a new handshake.";
    LaunchSession "LAUNCH_SESSION", "the launch session is unknown, expired or used",
        "A SEV or SEV-ES launch is measured once, within ten minutes of its session. The session is unknown to this broker, has expired, or a measurement was sent for it before. Launch the guest again: the relay asks for a new session.";
    Overloaded "OVERLOADED", "the broker has no room for another request",
        "A limit of the broker is reached: sessions, connections or the size of a request. It refuses instead of growing. Retry later; if it lasts, the operator should look for a flood or raise the limits.";
    Internal "INTERNAL", "the broker or agent failed inside",
        "Something that should work did not: storage, randomness, a full disk. Nothing was released. The details are in that program's own log under the time of this line.";
    OwnerSignature "OWNER_SIGNATURE", "the owner's signature is wrong",
        "The statement isn't signed by the key that is enrolled for its repository. Check that this identity directory belongs to the repository, and that the statement wasn't edited.";
    OwnerUnknown "OWNER_UNKNOWN", "no such owner is enrolled",
        "The repository has no enrolled key at this broker. Give the broker's operator the public key from 'sealpod init' and have it enrolled.";
    VersionExists "VERSION_EXISTS", "that version exists and never changes",
        "A key or registration with this address is already stored with other contents. Versions are create-only; seal again to get a new revision and key.";
    PolicySerial "POLICY_SERIAL", "the policy's serial is not newer",
        "The broker already holds a policy for this lineage with the same or a higher serial. An old policy can't replace a newer one; push again with a higher serial.";
    Statement "STATEMENT", "the signed statement is malformed",
        "The owner's statement is not canonical, has unknown or missing fields, or values out of range. Use a 'sealpod' of the broker's version or newer.";

    // Start of the guest and release of the key, said by the agent.
    NoTee "NO_TEE", "this guest has no TEE that works",
        "The VM has no SEV-SNP guest device or report provider, no injected launch secret (SEV, SEV-ES) and no ultravisor (Power PEF), or one that can't be used, so it can't prove what it is and gets no key. Start it as a confidential VM; there is no fallback.";
    TeeAmbiguous "TEE_AMBIGUOUS", "this guest has more than one TEE",
        "The VM offers two ways to prove what it is, for example a launch secret beside SEV-SNP. No host has a reason for that, and the agent doesn't choose. Start the VM as one kind of confidential VM.";
    LaunchSecret "LAUNCH_SECRET", "the secret that came with the launch can't be used",
        "The secret that was injected at launch (SEV, SEV-ES) or the file of the ESM blob (Power PEF) is malformed, can't be wiped, or is for another sealed spec than the guest's initdata names. Launch the VM again, with the initdata and the relay's or blob's secret of the same sealing.";
    InitdataMissing "INITDATA_MISSING", "the guest got no initdata",
        "No block device carries initdata, so the guest doesn't know which sealed spec is its own. The pod lacks the annotation that 'sealpod seal' wrote, or the runtime doesn't pass it (Kata 3.x, initdata enabled).";
    InitdataInvalid "INITDATA_INVALID", "the guest's initdata can't be used",
        "The initdata device is malformed, too large, there are several of them, or its sealpod.toml is missing or wrong. Deploy the sealed file unchanged.";
    HostDataMismatch "HOST_DATA_MISMATCH", "initdata is not what the launch bound",
        "The SHA-256 of the initdata document differs from HOST_DATA, which the hardware fixed at launch, or from the digest in the launch secret (SEV, SEV-ES) or ESM blob (Power PEF). The host changed one of the two. Nothing runs in this guest.";
    BrokerUnreachable "BROKER_UNREACHABLE", "the broker can't be reached",
        "The guest could not open a connection to the broker, directly or through the relay on its host. Check that sealpod-relay runs, that its --broker address is right and that the broker listens there.";
    BrokerPin "BROKER_PIN", "the broker's certificate is not the pinned one",
        "The TLS server on the way to the broker has a certificate that the pinned CA in initdata did not sign, or for another name. Either the broker got a new CA (seal again), or something stands in between.";
    BrokerProtocol "BROKER_PROTOCOL", "the broker's answer makes no sense",
        "An answer was malformed, too large, of another protocol version, or a key that does not open. Check the versions of agent and broker.";
    SpecMissing "SPEC_MISSING", "the sealed document has not arrived",
        "Initdata names a sealed document by digest, and neither initdata nor a mounted ConfigMap has supplied it. Apply the ConfigMap from the sealed file in the pod's namespace.";
    SpecDigestMismatch "SPEC_DIGEST_MISMATCH", "the sealed document is not the one initdata names",
        "A sealed document arrived, but its SHA-256 is another one. It was edited, re-encoded, or belongs to another sealing. Apply the ConfigMap from the same sealed file as the pod.";
    SpecInvalid "SPEC_INVALID", "the sealed document does not open",
        "The document has the right digest but is malformed, or the released key doesn't decrypt it, or its contents break a rule. Seal again with the current 'sealpod'.";
    SpecNotOpen "SPEC_NOT_OPEN", "not before the sealed spec is open",
        "Before the sealed spec is open the guest serves only what it needs to get there. This request has to come later; if the spec never opens, an earlier refusal says why.";
    SandboxState "SANDBOX_STATE", "the sandbox is not in the right state",
        "The request doesn't fit the sandbox's life: created twice, used before it was created, or after it ended. A guest serves one sandbox.";

    // Requests against the open spec, said by the agent.
    ContainerUnknown "CONTAINER_UNKNOWN", "the sealed spec has no such container",
        "The container's name is not in the sealed spec. A webhook or an edit added it (a sidecar, an ephemeral container). Add it to the pod and seal again, or exclude the pod from the webhook.";
    ContainerDuplicate "CONTAINER_DUPLICATE", "that container id is in use",
        "A container with this id exists already. The runtime has to remove it before it makes another with the same id.";
    SlotBusy "SLOT_BUSY", "that container already runs",
        "The sealed spec gives each container one slot, and an instance of this one is alive. It must exit or be removed before the next is created.";
    SlotOrder "SLOT_ORDER", "init containers come first, in order",
        "The sealed spec's init containers have to have exited with 0, one after the other, before this one may be created.";
    SlotRestart "SLOT_RESTART", "the restart policy doesn't allow another run",
        "The container has ended and the sealed restartPolicy says it is not run again. Seal with another restartPolicy, or make a new pod.";
    ExecDenied "EXEC_DENIED", "the sealed spec doesn't grant this exec",
        "Only commands that the owner granted at sealing run inside. Seal with --grant-exec CONTAINER='command', or use a probe or hook, which the spec carries itself.";
    SignalDenied "SIGNAL_DENIED", "this signal is not allowed",
        "TERM, KILL and the image's own stop signal are always allowed; others are not.";
    AttachDenied "ATTACH_DENIED", "the sealed spec doesn't let the host attach",
        "The host may write to a container's standard input only where the owner granted it and the sealed pod has stdin: true. Seal with --grant-attach CONTAINER; without it, 'kubectl attach -i' and 'kubectl run -i' don't reach the container.";
    ResizeDenied "RESIZE_DENIED", "that terminal may not be resized",
        "The size of a terminal is the host's to set only where it may attach, or for a granted exec with a terminal. Seal with --grant-attach CONTAINER, and tty: true in the pod.";
    UpdateDenied "UPDATE_DENIED", "the sealed spec doesn't allow these resources",
        "The host asked for more CPU or memory than the sealed limit, or for another kind of change. It may lower limits, and raise them up to what the owner granted: seal with --grant-update CONTAINER=cpu:2,memory:1Gi.";
    PauseDenied "PAUSE_DENIED", "a sealed container is not paused by the host",
        "Pausing would let the host choose the moments at which the workload runs. Stop the container instead: TERM, KILL and the image's stop signal are always allowed.";
    VolumeDenied "VOLUME_DENIED", "the sealed spec doesn't grant this volume",
        "A mount that the host added, or one whose kind isn't the sealed one's, isn't in the sealed spec's grants. Give its Secret or ConfigMap with --with FILE so that it is sealed, or seal with --grant-volume CONTAINER:PATH to take the host's files.";
    VolumeLimit "VOLUME_LIMIT", "a granted volume is larger than granted",
        "The files that the host copied for this volume exceed the bound of its grant. If they are meant to be that large, seal with a higher one: --grant-volume CONTAINER:PATH:max=8Mi.";
    ResourceDenied "RESOURCE_DENIED", "this container may not have that resource",
        "A container asks the broker through a socket of its own, and gets what the sealed spec lists for it and nothing else. Seal with --resource CONTAINER=kbs:///repository/type/tag if it is meant to have it.";
    SecretUnseal "SECRET_UNSEAL", "a sealed secret can't be opened",
        "An environment variable or file holds a sealed secret that is malformed, or whose resource the broker doesn't release to this guest. The container doesn't start, so that it never runs with the wrong value. The line names the variable or file; check that its resource was pushed.";
    StdinDenied "STDIN_DENIED", "the sealed spec doesn't open stdin",
        "The host may write to a container's standard input only where the sealed spec has stdin: true.";
    RpcDenied "RPC_DENIED", "a sealed guest doesn't do this",
        "This request would let the host change, look into or slow down the guest, so a sealed guest never serves it, whatever the spec says. The runtime's configuration that asks for it should be switched off.";
    NetworkDenied "NETWORK_DENIED", "that network change is not allowed",
        "The host may set up the pod's own interface and its routes, but not touch loopback or divert traffic that stays inside the pod.";
    CopyDenied "COPY_DENIED", "that file may not be copied in",
        "The path leaves the directory for files from the host, or the file is of a kind (device, link out of the directory) that is not accepted.";
    CopyLimit "COPY_LIMIT", "too much was copied in",
        "The files from the host exceed the guest's bound on size or number. Large data belongs in the image or comes over the network.";

    // Images and launch, said by the agent.
    ImagePull "IMAGE_PULL", "the image can't be pulled",
        "The registry can't be reached from inside the guest, refuses, or doesn't have this digest. Check the registry address and credentials that were sealed, and the guest's network.";
    ImageDigest "IMAGE_DIGEST", "the image is not the sealed one",
        "A manifest, config or layer has another digest than the one it was asked by. The registry or something on the way changed it.";
    ImageSignature "IMAGE_SIGNATURE", "nobody that the image policy names vouches for the image",
        "The sealed spec names this image by tag, and the image policy that was sealed with it asks for signatures. The line says what the registry had: no signature, one by another key, one for another image or name, one that has ended. Sign what the tag means now with a key of the policy (skopeo standalone-sign, skopeo copy --sign-by, cosign), or seal again with the digest. Nothing of the image was fetched but its manifest.";
    ImageUnpack "IMAGE_UNPACK", "a layer can't be unpacked safely",
        "A layer is malformed, too large, or contains an entry that would escape its directory or create a device. Rebuild the image; nothing of the layer was kept.";
    ImageConfig "IMAGE_CONFIG", "the image's config can't be used",
        "The image's configuration is malformed or contradicts the sealed pod: a user that isn't in its passwd file, root under runAsNonRoot, no command at all.";
    ImageKey "IMAGE_KEY", "the image's encryption can't be opened",
        "A layer is encrypted and none of the keys that the sealed spec names for its image opens it, or the broker doesn't give such a key. The line names the layer, the keys that were tried and the key that it was encrypted for. Push that key, name it when sealing, or add it as a recipient of the image. Layers that are there already are no exception.";
    LayerStore "LAYER_STORE", "the disk for image layers can't be used",
        "The sealed spec keeps layers on a block device of the host, encrypted under a key of the guest, and there is none with the serial number sealpod-layers, or it can't be set up. Give the VM such a disk, large enough for all layers unpacked, or seal with the layer store in guest memory. The guest never falls back by itself.";
    ImagePulling "IMAGE_PULLING", "the image is still being pulled",
        "The pull goes on in the guest and the line says how far it is; nothing failed. kubelet asks again by itself and the next request joins the same pull. If the percentage stands still between two lines, look at the guest's network and the registry.";
    Launch "LAUNCH", "the container could not be started",
        "The guest's kernel or runtime refused to start the process. The detail names the step; a missing or non-executable command is the usual reason.";

    // Guests that run without a sealed spec, said by the agent.
    PolicyDenied "POLICY_DENIED", "the guest's policy doesn't allow this request",
        "The policy.rego in the guest's initdata answered no to this request, or has no rule for it. The line names the rule; change the policy and the initdata that carries it, since the running guest's can only be replaced where it says so itself.";
    PolicyInvalid "POLICY_INVALID", "the guest's policy can't be used",
        "The policy.rego in the initdata, or the one sent with SetPolicy, doesn't compile, has another package than agent_policy, or gives an answer that is neither a boolean nor {allowed, ops}. The guest keeps the policy it had; without one it doesn't start its sandbox.";
    Mode "MODE", "not in this mode of the guest",
        "A guest is sealed, under a policy, or unsealed, chosen at its start by what was measured: initdata with sealpod.toml, initdata with policy.rego, or sealpod.unsealed=allow on the kernel command line. This request belongs to another mode, or what was found fits none.";

    // Storage and devices, said by the agent.
    Storage "STORAGE", "a storage can't be set up",
        "The storage that the runtime described has an unknown driver, bad options, or a source that can't be mounted. The line names its mount point and the step; what the step had mounted was undone.";
    Device "DEVICE", "a device didn't appear or can't be used",
        "The device that the runtime announced did not turn up in time, or isn't of the kind that was said. The line names its address; check the hotplug on the host and agent.hotplug_timeout.";
}
