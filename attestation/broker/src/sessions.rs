//! Attested sessions: a bounded table of what evidence vouched for, until it expires (RCAR step 5). Before
//! that there is nothing to keep: see [`crate::challenge`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use crate::challenge::SessionId;

/// A session is safe from eviction by strangers for this long: asking for a key takes less.
const GRACE: Duration = Duration::from_secs(30);

/// Why a session can't be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// No such session, or it ended.
    #[error("there is no such attested session, or it has expired; start again with /kbs/v0/auth")]
    Unknown,
    /// The nonce belongs to another session, or to no session of this broker.
    #[error("the evidence is for another session's nonce; start again with /kbs/v0/auth")]
    Nonce,
    /// Evidence was sent for it before.
    #[error("this session's challenge was answered already; a new attestation needs a new session")]
    Used,
    /// The session is attested already.
    #[error("this session is attested already; a new attestation needs a new session")]
    Attested,
    /// The table is full of younger sessions.
    #[error("too many sessions are open; try again in {} seconds", GRACE.as_secs())]
    Full,
    /// The system gave no randomness.
    #[error("the system's random number generator failed")]
    Random,
}

struct Entry<A> {
    share: IpAddr,
    number: u64,
    opened: SystemTime,
    expires: SystemTime,
    attested: Arc<A>,
}

struct Table<A> {
    next: u64,
    entries: HashMap<SessionId, Entry<A>>,
    by_age: BTreeMap<u64, SessionId>,
    by_share: BTreeSet<(IpAddr, u64)>,
}

/// The table. `A` is what an attested session holds; its key is the session's name as tokens carry it.
pub struct Sessions<A> {
    most: usize,
    most_per_address: usize,
    table: Mutex<Table<A>>,
}

impl<A> Sessions<A> {
    /// An empty table of at most `most` sessions, `most_per_address` of them from one address.
    #[must_use]
    pub fn new(most: usize, most_per_address: usize) -> Self {
        let table =
            Table { next: 0, entries: HashMap::new(), by_age: BTreeMap::new(), by_share: BTreeSet::new() };
        Self { most, most_per_address, table: Mutex::new(table) }
    }

    /// How many sessions there are, expired ones included until they are swept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.locked().entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keeps an attested session of `address` until `expires`.
    ///
    /// An address that has used up its share loses its own oldest session, so one host's flood doesn't reach
    /// another host's guests.
    ///
    /// # Errors
    /// [`SessionError::Unknown`] if it expired meanwhile, [`SessionError::Full`].
    pub fn keep(
        &self,
        alias: SessionId,
        attested: A,
        address: IpAddr,
        expires: SystemTime,
        now: SystemTime,
    ) -> Result<Arc<A>, SessionError> {
        if expires <= now {
            return Err(SessionError::Unknown);
        }
        let share = share_of(address);
        let mut table = self.locked();
        table.sweep(now);
        if table.by_share.range((share, 0)..=(share, u64::MAX)).count() >= self.most_per_address {
            table.evict_from(share);
        }
        if table.entries.len() >= self.most && !table.evict_from(share) && !table.evict_oldest(now) {
            return Err(SessionError::Full);
        }
        let (number, attested) = (table.next, Arc::new(attested));
        table.next += 1;
        table.by_age.insert(number, alias);
        table.by_share.insert((share, number));
        let entry = Entry { share, number, opened: now, expires, attested: attested.clone() };
        table.entries.insert(alias, entry);
        Ok(attested)
    }

    /// What the attested session of that name holds.
    ///
    /// # Errors
    /// [`SessionError::Unknown`].
    pub fn attested(&self, alias: SessionId, now: SystemTime) -> Result<Arc<A>, SessionError> {
        let mut table = self.locked();
        table.sweep(now);
        // Asked of itself: behind an older one that a clock set back made live longer, the sweep doesn't get to it.
        let entry = table.entries.get(&alias).filter(|entry| entry.expires > now);
        entry.map(|entry| entry.attested.clone()).ok_or(SessionError::Unknown)
    }

    fn locked(&self) -> MutexGuard<'_, Table<A>> {
        // No code that runs under this lock can leave the table half changed.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<A> Table<A> {
    fn remove(&mut self, id: SessionId) {
        if let Some(entry) = self.entries.remove(&id) {
            self.by_age.remove(&entry.number);
            self.by_share.remove(&(entry.share, entry.number));
        }
    }

    /// Sessions live about equally long, so the oldest expire first.
    fn sweep(&mut self, now: SystemTime) {
        while let Some((_, id)) = self.by_age.first_key_value() {
            let id = *id;
            match self.entries.get(&id) {
                Some(entry) if entry.expires > now => break,
                _ => {
                    self.by_age.pop_first();
                    self.remove(id);
                }
            }
        }
    }

    fn evict_from(&mut self, share: IpAddr) -> bool {
        let oldest = self.by_share.range((share, 0)..=(share, u64::MAX)).next().copied();
        let id = oldest.and_then(|(_, number)| self.by_age.get(&number).copied());
        id.map(|id| self.remove(id)).is_some()
    }

    fn evict_oldest(&mut self, now: SystemTime) -> bool {
        let Some(id) = self.by_age.values().next().copied() else { return false };
        let old = self.entries.get(&id).is_some_and(|entry| entry.opened + GRACE <= now);
        if old {
            self.remove(id);
        }
        old
    }
}

/// IPv6 addresses count by /64: a single machine has all of it.
pub(crate) fn share_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) & !u128::from(u64::MAX)).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));
    const NOW: SystemTime = SystemTime::UNIX_EPOCH;
    const LATER: Duration = Duration::from_secs(300);

    fn sessions() -> Sessions<u32> {
        Sessions::new(8, 4)
    }

    fn id(n: u32) -> SessionId {
        SessionId::parse(&format!("{n:032x}")).unwrap()
    }

    fn keep(sessions: &Sessions<u32>, n: u32, address: IpAddr, now: SystemTime) -> Result<(), SessionError> {
        sessions.keep(id(n), n, address, now + LATER, now).map(|_| ())
    }

    #[test]
    fn a_session_is_found_by_its_name_until_it_expires() {
        let sessions = sessions();
        keep(&sessions, 1, A, NOW).unwrap();
        assert_eq!(*sessions.attested(id(1), NOW).unwrap(), 1);
        assert_eq!(sessions.attested(id(2), NOW).unwrap_err(), SessionError::Unknown);
        assert_eq!(sessions.attested(id(1), NOW + LATER).unwrap_err(), SessionError::Unknown);
        assert!(sessions.is_empty());
    }

    #[test]
    fn a_session_that_expires_during_its_attestation_is_not_kept() {
        let sessions = sessions();
        assert_eq!(sessions.keep(id(1), 1, A, NOW, NOW).unwrap_err(), SessionError::Unknown);
        assert!(sessions.is_empty());
    }

    #[test]
    fn a_session_expires_behind_one_from_before_the_clock_was_set_back() {
        let sessions = sessions();
        keep(&sessions, 1, B, NOW + Duration::from_secs(3600)).unwrap();
        keep(&sessions, 2, A, NOW).unwrap();
        assert_eq!(sessions.attested(id(2), NOW + LATER).unwrap_err(), SessionError::Unknown);
    }

    #[test]
    fn thousands_of_sessions_from_one_address_stay_in_its_share() {
        let sessions = sessions();
        keep(&sessions, 0, B, NOW).unwrap();
        for n in 1..5000 {
            keep(&sessions, n, A, NOW).unwrap();
        }
        assert_eq!(sessions.len(), 5);
        assert!(sessions.attested(id(0), NOW).is_ok());
        assert!(sessions.attested(id(4999), NOW).is_ok());
        assert!(sessions.attested(id(4995), NOW).is_err());
    }

    #[test]
    fn a_full_table_keeps_young_sessions_and_gives_up_old_ones() {
        let sessions = sessions();
        for n in 0..8 {
            keep(&sessions, n.into(), IpAddr::from([10, 0, 1, n]), NOW).unwrap();
        }
        assert_eq!(keep(&sessions, 8, A, NOW), Err(SessionError::Full));
        let later = NOW + GRACE;
        keep(&sessions, 9, A, later).unwrap();
        assert!(sessions.attested(id(0), later).is_err());
        assert!(sessions.attested(id(1), later).is_ok());
    }

    #[test]
    fn an_ipv6_network_has_one_share() {
        let share = |text: &str| share_of(text.parse().unwrap());
        assert_eq!(share("2001:db8::1"), share("2001:db8::ffff:1"));
        assert_ne!(share("2001:db8::1"), share("2001:db8:0:1::1"));
        assert_eq!(share("::ffff:10.0.0.1"), A);
    }
}
