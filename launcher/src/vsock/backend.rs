//! The two virtqueues as `vhost-user-backend` presents them: descriptors in, packets out, and back.

use std::io::{Read as _, Write as _};

use vhost::vhost_user::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost_user_backend::{VhostUserBackendMut, VringRwLock, VringT as _};
use virtio_queue::{QueueOwnedT as _, QueueT as _};
use vm_memory::{GuestAddressSpace as _, GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier};

use super::packet::HEADER;
use super::switch::Switch;

/// Receive, transmit, event. QEMU keeps the third to itself but counts it.
const QUEUES: usize = 3;
const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;
/// Our sockets' events; numbers up to and including [`QUEUES`] are taken.
pub(super) const SOCKETS: u64 = QUEUES as u64 + 1;
const QUEUE_SIZE: usize = 1024;
/// Longest data in a packet: what Linux puts into one (`VIRTIO_VSOCK_MAX_PKT_BUF_SIZE`).
const LONGEST: usize = 64 * 1024;

const VIRTIO_F_NOTIFY_ON_EMPTY: u64 = 1 << 24;
const VIRTIO_RING_F_EVENT_IDX: u64 = 1 << 29;
const VIRTIO_F_VERSION_1: u64 = 1 << 32;
const VIRTIO_F_ACCESS_PLATFORM: u64 = 1 << 33;

type Memory = GuestMemoryAtomic<GuestMemoryMmap>;

pub(super) struct Backend {
    switch: Switch,
    memory: Option<Memory>,
    event_idx: bool,
    buffer: Vec<u8>,
    /// The guest's memory is encrypted, so it insists on the platform's access rules.
    encrypted: bool,
}

impl Backend {
    pub(super) fn new(switch: Switch, encrypted: bool) -> Backend {
        Backend { switch, memory: None, event_idx: false, buffer: vec![0; LONGEST], encrypted }
    }

    /// Everything the guest has put into its transmit queue.
    fn transmit(&mut self, memory: &Memory, vring: &VringRwLock) -> std::io::Result<()> {
        let mut used = false;
        loop {
            if self.event_idx {
                vring.disable_notification().map_err(std::io::Error::other)?;
            }
            loop {
                let guard = memory.memory();
                let chain = vring.get_mut().get_queue_mut().pop_descriptor_chain(guard.clone());
                let Some(chain) = chain else { break };
                let head = chain.head_index();
                let mut header = [0; HEADER];
                // A chain that can't be read is given back like any other: the guest only harms itself.
                if let Ok(mut reader) = chain.reader(&*guard)
                    && reader.read_exact(&mut header).is_ok()
                {
                    let length =
                        u32::from_le_bytes([header[24], header[25], header[26], header[27]]) as usize;
                    if length <= LONGEST && reader.read_exact(&mut self.buffer[..length]).is_ok() {
                        self.switch.guest_sent(&header, &self.buffer[..length]);
                    }
                }
                vring.add_used(head, 0).map_err(std::io::Error::other)?;
                used = true;
            }
            if !self.event_idx || !vring.enable_notification().map_err(std::io::Error::other)? {
                break;
            }
        }
        if used { signal(vring) } else { Ok(()) }
    }

    /// As much for the guest as its receive queue has room for.
    fn receive(&mut self, memory: &Memory, vring: &VringRwLock) -> std::io::Result<()> {
        let mut used = false;
        while self.switch.has_packet() {
            let guard = memory.memory();
            let chain = vring.get_mut().get_queue_mut().pop_descriptor_chain(guard.clone());
            let Some(chain) = chain else {
                // Out of descriptors: ask for a kick, and look again if some came in between.
                if vring.enable_notification().map_err(std::io::Error::other)? {
                    continue;
                }
                break;
            };
            let head = chain.head_index();
            let mut written = 0;
            if let Ok(mut writer) = chain.writer(&*guard) {
                let room = writer.available_bytes().saturating_sub(HEADER).min(LONGEST);
                let Some(packet) = self.switch.next_for_guest(&mut self.buffer[..room]) else {
                    vring.get_mut().get_queue_mut().go_to_previous_position();
                    break;
                };
                let length = packet.length as usize;
                let header = packet.to_guest(self.switch.guest_cid());
                if writer.write_all(&header).and_then(|()| writer.write_all(&self.buffer[..length])).is_ok() {
                    written = u32::try_from(HEADER + length).unwrap_or(0);
                }
            }
            vring.add_used(head, written).map_err(std::io::Error::other)?;
            used = true;
        }
        if used { signal(vring) } else { Ok(()) }
    }
}

fn signal(vring: &VringRwLock) -> std::io::Result<()> {
    if vring.needs_notification().map_err(std::io::Error::other)? {
        vring.signal_used_queue()
    } else {
        Ok(())
    }
}

impl VhostUserBackendMut for Backend {
    type Bitmap = ();
    type Vring = VringRwLock;

    fn num_queues(&self) -> usize {
        QUEUES
    }

    fn max_queue_size(&self) -> usize {
        QUEUE_SIZE
    }

    fn features(&self) -> u64 {
        let access = if self.encrypted { VIRTIO_F_ACCESS_PLATFORM } else { 0 };
        access
            | VIRTIO_F_VERSION_1
            | VIRTIO_F_NOTIFY_ON_EMPTY
            | VIRTIO_RING_F_EVENT_IDX
            | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        // QEMU wants the latter two of a backend with access rules, for an IOMMU that the VM doesn't have.
        let access = VhostUserProtocolFeatures::REPLY_ACK | VhostUserProtocolFeatures::BACKEND_REQ;
        let always = VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::CONFIG;
        if self.encrypted { always | access } else { always }
    }

    fn set_event_idx(&mut self, enabled: bool) {
        self.event_idx = enabled;
    }

    /// `struct virtio_vsock_config`: the guest's context id, 8 bytes.
    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        let config = self.switch.guest_cid().to_le_bytes();
        let start = offset as usize;
        config.get(start..start.saturating_add(size as usize)).map(<[u8]>::to_vec).unwrap_or_default()
    }

    fn update_memory(&mut self, memory: Memory) -> std::io::Result<()> {
        self.memory = Some(memory);
        Ok(())
    }

    fn queues_per_thread(&self) -> Vec<u64> {
        vec![0b11]
    }

    fn exit_event(&self, _thread: usize) -> Option<(EventConsumer, EventNotifier)> {
        new_event_consumer_and_notifier(EventFlag::NONBLOCK | EventFlag::CLOEXEC).ok()
    }

    fn handle_event(
        &mut self,
        event: u16,
        _events: EventSet,
        vrings: &[VringRwLock],
        _thread: usize,
    ) -> std::io::Result<()> {
        let ready = |queue: u16| vrings[usize::from(queue)].get_ref().get_queue().ready();
        let guest_is_up = self.memory.is_some() && ready(RECEIVE) && ready(TRANSMIT);
        if u64::from(event) == SOCKETS {
            self.switch.poll(guest_is_up);
        }
        let Some(memory) = self.memory.clone().filter(|_| guest_is_up) else { return Ok(()) };
        // Transmitting may free credit or make answers, so it comes first.
        self.transmit(&memory, &vrings[usize::from(TRANSMIT)])?;
        self.receive(&memory, &vrings[usize::from(RECEIVE)])
    }
}
