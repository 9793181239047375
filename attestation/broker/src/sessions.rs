//! Attestation sessions: a bounded table of single-use nonces (RCAR steps 1 to 4).
//!
//! `open` gives a nonce to anyone, `begin` takes it out for exactly one attestation, `complete` turns
//! the session into an attested one, for good. Whatever happens in between, a nonce is used at most once:
//! a claim that is dropped ends its session.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use base64::prelude::{BASE64_STANDARD, Engine};
use subtle::ConstantTimeEq;

/// An unattested session is safe from eviction by strangers for this long: a handshake takes less.
const GRACE: Duration = Duration::from_secs(30);

/// Why a session can't be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// No such session, or it ended.
    #[error("there is no such session, or it has expired; start again with /kbs/v0/auth")]
    Unknown,
    /// An attestation runs right now.
    #[error("an attestation is already in flight in this session")]
    InFlight,
    /// The session is attested already.
    #[error("this session is attested already; a new attestation needs a new session")]
    Attested,
    /// The session isn't attested yet.
    #[error("this session is not attested; send evidence to /kbs/v0/attest first")]
    NotAttested,
    /// The table is full of younger sessions.
    #[error("too many sessions are open; try again in {} seconds", GRACE.as_secs())]
    Full,
    /// The system gave no randomness.
    #[error("the system's random number generator failed")]
    Random,
}

/// A session's secret name, 16 random bytes, lower hex in the cookie.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId([u8; 16]);

impl SessionId {
    fn generate() -> Result<Self, SessionError> {
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|_| SessionError::Random)?;
        Ok(Self(id))
    }

    /// Reads the cookie's form: 32 lower-case hex digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 32 || text.bytes().any(|b| b.is_ascii_uppercase()) {
            return None;
        }
        let mut id = [0; 16];
        hex::decode_to_slice(text, &mut id).ok()?;
        Some(Self(id))
    }

    /// The cookie's form.
    #[must_use]
    pub fn reveal(&self) -> String {
        hex::encode(self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionId(…)")
    }
}

/// A nonce that this broker made and hasn't used yet. Consumed by appraisal, so it can't be used twice.
#[derive(Debug)]
pub struct SessionNonce(String);

impl SessionNonce {
    fn generate() -> Result<Self, SessionError> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|_| SessionError::Random)?;
        Ok(Self(BASE64_STANDARD.encode(bytes)))
    }

    /// The nonce as on the wire: standard base64 of 32 bytes.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The nonce's text, for what is bound to it; the right to use it ends here.
    #[must_use]
    pub fn spend(self) -> String {
        self.0
    }

    /// Whether `claimed` is this nonce, in constant time.
    #[must_use]
    pub fn matches(&self, claimed: &str) -> bool {
        self.0.as_bytes().ct_eq(claimed.as_bytes()).into()
    }
}

enum State<A> {
    Pending(SessionNonce),
    InFlight,
    Attested { alias: SessionId, attested: Arc<A> },
}

struct Entry<A> {
    share: IpAddr,
    number: u64,
    opened: SystemTime,
    expires: SystemTime,
    state: State<A>,
}

struct Table<A> {
    next: u64,
    entries: HashMap<SessionId, Entry<A>>,
    by_age: BTreeMap<u64, SessionId>,
    by_share: BTreeMap<(IpAddr, u64), SessionId>,
    /// Attested sessions' second names, for tokens: who sees a token doesn't see the cookie.
    aliases: HashMap<SessionId, SessionId>,
}

/// The table. `A` is what an attested session holds.
pub struct Sessions<A> {
    most: usize,
    most_per_address: usize,
    lifetime: Duration,
    table: Mutex<Table<A>>,
}

impl<A> Sessions<A> {
    /// An empty table of at most `most` sessions, `most_per_address` of them from one address.
    #[must_use]
    pub fn new(most: usize, most_per_address: usize, lifetime: Duration) -> Self {
        let table = Table {
            next: 0,
            entries: HashMap::new(),
            by_age: BTreeMap::new(),
            by_share: BTreeMap::new(),
            aliases: HashMap::new(),
        };
        Self { most, most_per_address, lifetime, table: Mutex::new(table) }
    }

    /// How long a session lives.
    #[must_use]
    pub fn lifetime(&self) -> Duration {
        self.lifetime
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

    /// Opens a session for `address` and returns its id and nonce.
    ///
    /// An address that has used up its share loses its own oldest unattested session, so one host's flood
    /// doesn't reach another host's guests.
    ///
    /// # Errors
    /// [`SessionError::Full`] or [`SessionError::Random`].
    pub fn open(&self, address: IpAddr, now: SystemTime) -> Result<(SessionId, String), SessionError> {
        let id = SessionId::generate()?;
        let nonce = SessionNonce::generate()?;
        let wire = nonce.as_str().to_owned();
        let share = share_of(address);

        let mut table = self.locked();
        table.sweep(now);
        if table.by_share.range((share, 0)..=(share, u64::MAX)).count() >= self.most_per_address
            && !table.evict_from(share)
        {
            return Err(SessionError::Full);
        }
        if table.entries.len() >= self.most && !table.evict_from(share) && !table.evict_oldest(now) {
            return Err(SessionError::Full);
        }
        let number = table.next;
        table.next += 1;
        table.by_age.insert(number, id);
        table.by_share.insert((share, number), id);
        let expires = now + self.lifetime;
        table.entries.insert(id, Entry { share, number, opened: now, expires, state: State::Pending(nonce) });
        Ok((id, wire))
    }

    /// Takes the session's nonce out for one attestation.
    ///
    /// # Errors
    /// [`SessionError`] if the session is unknown, busy or attested.
    pub fn begin(
        &self,
        id: SessionId,
        now: SystemTime,
    ) -> Result<(Claim<'_, A>, SessionNonce), SessionError> {
        let mut table = self.locked();
        table.sweep(now);
        let entry = table.live(id, now)?;
        match std::mem::replace(&mut entry.state, State::InFlight) {
            State::Pending(nonce) => Ok((Claim { sessions: self, id, open: true }, nonce)),
            State::InFlight => Err(SessionError::InFlight),
            attested @ State::Attested { .. } => {
                entry.state = attested;
                Err(SessionError::Attested)
            }
        }
    }

    /// What the attested session holds.
    ///
    /// # Errors
    /// [`SessionError`] if the session is unknown or not attested.
    pub fn attested(&self, id: SessionId, now: SystemTime) -> Result<Arc<A>, SessionError> {
        let mut table = self.locked();
        table.sweep(now);
        match &table.live(id, now)?.state {
            State::Attested { attested, .. } => Ok(attested.clone()),
            State::Pending(_) | State::InFlight => Err(SessionError::NotAttested),
        }
    }

    /// The same, by the alias that [`Claim::complete`] made.
    ///
    /// # Errors
    /// [`SessionError`] if the session is unknown.
    pub fn attested_as(&self, alias: SessionId, now: SystemTime) -> Result<Arc<A>, SessionError> {
        let id = self.locked().aliases.get(&alias).copied().ok_or(SessionError::Unknown)?;
        self.attested(id, now)
    }

    fn locked(&self) -> MutexGuard<'_, Table<A>> {
        // No code that runs under this lock can leave the table half changed.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to finish one attestation. Dropped without [`Claim::complete`], it ends the session.
pub struct Claim<'a, A> {
    sessions: &'a Sessions<A>,
    id: SessionId,
    open: bool,
}

impl<A> Claim<'_, A> {
    /// Turns the session into an attested one; also returns an alias for its token.
    ///
    /// # Errors
    /// [`SessionError::Unknown`] if it expired meanwhile, or [`SessionError::Random`].
    pub fn complete(mut self, attested: A, now: SystemTime) -> Result<(Arc<A>, SessionId), SessionError> {
        let alias = SessionId::generate()?;
        let attested = Arc::new(attested);
        let mut table = self.sessions.locked();
        table.sweep(now);
        let entry = table.live(self.id, now)?;
        entry.state = State::Attested { alias, attested: attested.clone() };
        table.aliases.insert(alias, self.id);
        self.open = false;
        drop(table);
        Ok((attested, alias))
    }
}

impl<A> Drop for Claim<'_, A> {
    fn drop(&mut self) {
        if self.open {
            self.sessions.locked().remove(self.id);
        }
    }
}

impl<A> Table<A> {
    fn remove(&mut self, id: SessionId) {
        if let Some(entry) = self.entries.remove(&id) {
            self.by_age.remove(&entry.number);
            self.by_share.remove(&(entry.share, entry.number));
            if let State::Attested { alias, .. } = entry.state {
                self.aliases.remove(&alias);
            }
        }
    }

    /// A session that has time left. Asked of itself: behind an older one that a clock set back made live
    /// longer, the sweep doesn't get to it.
    fn live(&mut self, id: SessionId, now: SystemTime) -> Result<&mut Entry<A>, SessionError> {
        self.entries.get_mut(&id).filter(|entry| entry.expires > now).ok_or(SessionError::Unknown)
    }

    /// All sessions live equally long, so the oldest expire first.
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

    fn is_pending(&self, id: &SessionId) -> bool {
        matches!(self.entries.get(id), Some(Entry { state: State::Pending(_), .. }))
    }

    fn evict_from(&mut self, share: IpAddr) -> bool {
        let own = self.by_share.range((share, 0)..=(share, u64::MAX)).map(|(_, id)| *id);
        let Some(id) = own.into_iter().find(|id| self.is_pending(id)) else { return false };
        self.remove(id);
        true
    }

    fn evict_oldest(&mut self, now: SystemTime) -> bool {
        let Some(id) = self.by_age.values().copied().find(|id| self.is_pending(id)) else { return false };
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

    fn sessions() -> Sessions<&'static str> {
        Sessions::new(8, 4, Duration::from_secs(300))
    }

    #[test]
    fn a_session_is_attested_once() {
        let sessions = sessions();
        let (id, wire) = sessions.open(A, NOW).unwrap();
        assert_eq!(sessions.attested(id, NOW).unwrap_err(), SessionError::NotAttested);
        let (claim, nonce) = sessions.begin(id, NOW).unwrap();
        assert!(nonce.matches(&wire));
        let (_, alias) = claim.complete("done", NOW).unwrap();
        assert_eq!(*sessions.attested(id, NOW).unwrap(), "done");
        assert_eq!(*sessions.attested_as(alias, NOW).unwrap(), "done");
        assert_eq!(sessions.attested(alias, NOW).unwrap_err(), SessionError::Unknown);
        assert_eq!(sessions.attested_as(id, NOW).unwrap_err(), SessionError::Unknown);
        assert_eq!(sessions.begin(id, NOW).err(), Some(SessionError::Attested));
        assert_eq!(*sessions.attested(id, NOW).unwrap(), "done");
    }

    #[test]
    fn a_second_attestation_at_the_same_time_is_refused() {
        let sessions = sessions();
        let (id, _) = sessions.open(A, NOW).unwrap();
        let (claim, _nonce) = sessions.begin(id, NOW).unwrap();
        assert_eq!(sessions.begin(id, NOW).err(), Some(SessionError::InFlight));
        claim.complete("done", NOW).unwrap();
    }

    #[test]
    fn a_failed_attestation_ends_the_session() {
        let sessions = sessions();
        let (id, _) = sessions.open(A, NOW).unwrap();
        drop(sessions.begin(id, NOW).unwrap());
        assert_eq!(sessions.begin(id, NOW).err(), Some(SessionError::Unknown));
        assert!(sessions.is_empty());
    }

    #[test]
    fn a_session_expires() {
        let sessions = sessions();
        let (pending, _) = sessions.open(A, NOW).unwrap();
        let (attested, _) = sessions.open(A, NOW).unwrap();
        let (_, alias) = sessions.begin(attested, NOW).unwrap().0.complete("done", NOW).unwrap();
        let later = NOW + Duration::from_secs(300);
        assert_eq!(sessions.attested_as(alias, later).unwrap_err(), SessionError::Unknown);
        assert_eq!(sessions.begin(pending, later).err(), Some(SessionError::Unknown));
        assert_eq!(sessions.attested(attested, later).unwrap_err(), SessionError::Unknown);
        assert!(sessions.is_empty());
    }

    #[test]
    fn a_session_expires_behind_one_from_before_the_clock_was_set_back() {
        let sessions = sessions();
        sessions.open(B, NOW + Duration::from_secs(3600)).unwrap();
        let (pending, _) = sessions.open(A, NOW).unwrap();
        let (attested, _) = sessions.open(A, NOW).unwrap();
        let (in_flight, _) = sessions.open(A, NOW).unwrap();
        sessions.begin(attested, NOW).unwrap().0.complete("done", NOW).unwrap();
        let (claim, _nonce) = sessions.begin(in_flight, NOW).unwrap();
        let later = NOW + Duration::from_secs(300);
        assert_eq!(sessions.begin(pending, later).err(), Some(SessionError::Unknown));
        assert_eq!(sessions.attested(attested, later).unwrap_err(), SessionError::Unknown);
        assert_eq!(claim.complete("done", later).unwrap_err(), SessionError::Unknown);
    }

    #[test]
    fn a_session_that_expires_during_its_attestation_is_not_attested() {
        let sessions = sessions();
        let (id, _) = sessions.open(A, NOW).unwrap();
        let (claim, _nonce) = sessions.begin(id, NOW).unwrap();
        let later = NOW + Duration::from_secs(300);
        assert_eq!(claim.complete("done", later).unwrap_err(), SessionError::Unknown);
    }

    #[test]
    fn thousands_of_sessions_from_one_address_stay_in_its_share() {
        let sessions = sessions();
        let (other, _) = sessions.open(B, NOW).unwrap();
        let (attested, _) = sessions.open(A, NOW).unwrap();
        sessions.begin(attested, NOW).unwrap().0.complete("done", NOW).unwrap();
        for _ in 0..5000 {
            sessions.open(A, NOW).unwrap();
        }
        assert_eq!(sessions.len(), 5);
        assert!(sessions.begin(other, NOW).is_ok());
        assert!(sessions.attested(attested, NOW).is_ok());
    }

    #[test]
    fn a_full_table_keeps_young_sessions_and_gives_up_old_ones() {
        let sessions = sessions();
        let addresses = (0..8).map(|n| IpAddr::from([10, 0, 1, n]));
        let ids: Vec<_> = addresses.map(|address| sessions.open(address, NOW).unwrap().0).collect();
        assert_eq!(sessions.open(A, NOW).err(), Some(SessionError::Full));
        let later = NOW + GRACE;
        sessions.open(A, later).unwrap();
        assert_eq!(sessions.begin(ids[0], later).err(), Some(SessionError::Unknown));
        assert!(sessions.begin(ids[1], later).is_ok());
    }

    #[test]
    fn an_ipv6_network_has_one_share() {
        let share = |text: &str| share_of(text.parse().unwrap());
        assert_eq!(share("2001:db8::1"), share("2001:db8::ffff:1"));
        assert_ne!(share("2001:db8::1"), share("2001:db8:0:1::1"));
        assert_eq!(share("::ffff:10.0.0.1"), A);
    }

    #[test]
    fn ids_are_exact() {
        let sessions = sessions();
        let (id, _) = sessions.open(A, NOW).unwrap();
        let text = id.reveal();
        assert_eq!(SessionId::parse(&text), Some(id));
        for wrong in [text.to_uppercase() + "A", text[1..].to_owned(), format!("{text}0"), "é".repeat(16)] {
            assert_eq!(SessionId::parse(&wrong), None, "{wrong}");
        }
    }
}
