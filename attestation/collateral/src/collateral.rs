//! The cache in front of the key distribution service: memory, then the directory, then the network, one
//! fetch a piece at a time, failures remembered for a while.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use crate::directory::{Bounds, Directory, DirectoryError};
use crate::http::{Base, Patience, UrlError};
use crate::item::{Item, ItemError, Roots};
use crate::kds::{Kds, KdsError};
use crate::key::{Csp, Key, SevProduct};
use crate::memory::{Kept, Recent};
use crate::note::{Note, Why};
use crate::tls::{self, TlsError};

/// Pieces in memory: about 2 KiB each.
const IN_MEMORY: usize = 1024;
/// Pieces that are known not to be there.
const ABSENT: usize = 2048;
/// Cloud providers whose keys one cache is asked for.
const CSPS: usize = 16;
/// Pieces being fetched for reports that strangers sent.
const FLIGHTS: usize = 256;
/// Connections to services for them.
const FETCHES: usize = 8;
/// How long what isn't there counts as missing without another look.
const ABSENT_FOR: Duration = Duration::from_secs(30);
/// How long a list is used before another look at the directory, and at the service.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
const ASK_AGAIN: Duration = Duration::from_secs(12 * 3600);

/// Takes a line that an operator should see.
pub type Tell = Box<dyn Fn(&str) + Send + Sync>;

/// What a cache is made of.
pub struct Settings {
    /// Its directory; made where it is missing.
    pub directory: PathBuf,
    /// Base URLs of key distribution services, asked in this order; none: the cache alone.
    pub kds: Vec<String>,
    /// CA file for https; the system's CAs without it.
    pub ca: Option<PathBuf>,
    /// Are `http://` URLs allowed? What they answer is signed by AMD, but who answers isn't known.
    pub allow_plain: bool,
    /// Roots that chains may end in.
    pub roots: Roots,
    /// Bounds of the directory.
    pub bounds: Bounds,
    /// Time for services.
    pub patience: Patience,
    /// Where damaged files and failed fetches are told.
    pub tell: Tell,
}

impl Settings {
    /// A directory and nobody to ask.
    #[must_use]
    pub fn offline(directory: PathBuf, roots: Roots) -> Self {
        Self {
            directory,
            kds: Vec::new(),
            ca: None,
            allow_plain: false,
            roots,
            bounds: Bounds::default(),
            patience: Patience::default(),
            tell: Box::new(|_| {}),
        }
    }
}

/// Why a cache can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// A service's URL.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// The CAs for https.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// How far a look goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reach {
    /// Memory and directory.
    Cache,
    /// The key distribution service too.
    Service,
}

/// What a look found. A stale list comes with a note that says why there is no newer one.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// The piece.
    pub item: Option<Arc<Item>>,
    /// What is wrong.
    pub note: Option<Note>,
}

#[derive(Debug, Clone)]
struct Absent {
    until: SystemTime,
    reach: Reach,
    note: Note,
}

type Flight = (Key, Reach);

/// AMD's collateral: cached, fetched, imported.
pub struct Collateral {
    pub(crate) directory: Directory,
    pub(crate) roots: Roots,
    kds: Kds,
    memory: Mutex<Recent<Kept>>,
    absent: Mutex<Recent<Absent>>,
    csps: Mutex<Option<(SystemTime, Vec<Csp>)>>,
    flights: Mutex<HashMap<Flight, watch::Receiver<Option<Found>>>>,
    fetches: Semaphore,
    tell: Tell,
}

impl Collateral {
    /// Opens a cache.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(settings: Settings) -> Result<Arc<Self>, OpenError> {
        let directory = Directory::open(&settings.directory, settings.bounds)?;
        let mut tls = None;
        let mut bases = Vec::new();
        for url in &settings.kds {
            if tls.is_none() && Base::needs_tls(url) {
                tls = Some(tls::client(settings.ca.as_deref())?);
            }
            bases.push(Base::new(url, tls.clone(), settings.allow_plain)?);
        }
        Ok(Arc::new(Self {
            directory,
            roots: settings.roots,
            kds: Kds::new(bases, settings.patience),
            memory: Mutex::new(Recent::new(IN_MEMORY)),
            absent: Mutex::new(Recent::new(ABSENT)),
            csps: Mutex::default(),
            flights: Mutex::default(),
            fetches: Semaphore::new(FETCHES),
            tell: settings.tell,
        }))
    }

    /// Looks a piece up: what memory has is given at once, everything else within `wait`. A fetch that
    /// takes longer goes on, for whoever asks next.
    pub async fn get(self: &Arc<Self>, key: &Key, reach: Reach, now: SystemTime, wait: Duration) -> Found {
        let kept = lock(&self.memory).get(key);
        let absent = lock(&self.absent).get(key).filter(|absent| {
            // A clock that was set back doesn't prolong it.
            now < absent.until && now + ABSENT_FOR >= absent.until && absent.reach >= reach
        });
        match (kept, absent) {
            (Some(kept), absent) if usable(&kept.item, now) => {
                if absent.is_none() && self.due(&kept, reach, now) {
                    // In use until the new one is there.
                    drop(self.fly(key, reach, now));
                }
                Found { item: Some(kept.item), note: None }
            }
            (kept, Some(absent)) => Found { item: kept.map(|kept| kept.item), note: Some(absent.note) },
            (kept, None) => {
                let stale = kept.map(|kept| kept.item);
                let failed = |why| Found { item: stale, note: Some(Note::new(key, why)) };
                let Some(mut flight) = self.fly(key, reach, now) else { return failed(Why::Busy) };
                match timeout(wait, flight.wait_for(Option::is_some)).await {
                    Ok(Ok(found)) => {
                        let Found { item, note } = (*found).clone().unwrap_or_default();
                        // The fetch may have begun as the renewal of a list that was good then.
                        let good = item.as_ref().is_some_and(|item| usable(item, now));
                        Found { item, note: note.filter(|_| !good) }
                    }
                    Ok(Err(_)) | Err(_) => failed(Why::Slow),
                }
            }
        }
    }

    /// Is there a service to ask?
    pub(crate) fn asks(&self) -> bool {
        self.kds.is_configured()
    }

    /// Is it time for another look at where a usable list came from?
    fn due(&self, kept: &Kept, reach: Reach, now: SystemTime) -> bool {
        let Some(crl) = kept.item.crl() else { return false };
        let asks = reach == Reach::Service && self.kds.is_configured();
        let pause = if asks { ASK_AGAIN } else { LOOK_AGAIN };
        let asked = kept.asked.and_then(|asked| now.duration_since(asked).ok());
        let period = crl.next_update.duration_since(crl.this_update).unwrap_or_default();
        let soon_stale = asks && now + period / 4 >= crl.next_update;
        asked.is_none_or(|age| age >= pause || (soon_stale && age >= LOOK_AGAIN))
    }

    /// Joins the fetch of a piece, or starts it. `None` when too many are under way.
    fn fly(
        self: &Arc<Self>,
        key: &Key,
        reach: Reach,
        now: SystemTime,
    ) -> Option<watch::Receiver<Option<Found>>> {
        let flight = (key.clone(), reach);
        let mut flights = lock(&self.flights);
        if let Some(under_way) = flights.get(&flight) {
            return Some(under_way.clone());
        }
        // Chains and lists are few, and everyone needs them: strangers' chips can't crowd them out.
        if flights.len() >= FLIGHTS && !matches!(key, Key::Chain(..) | Key::Crl(..)) {
            return None;
        }
        let (sender, receiver) = watch::channel(None);
        flights.insert(flight.clone(), receiver.clone());
        let landing = Landing { collateral: Arc::clone(self), flight };
        drop(tokio::spawn(async move {
            let (key, reach) = &landing.flight;
            let found = landing.collateral.load(key, *reach, now).await;
            // What it found is in memory by now, so nobody starts another.
            drop(landing);
            sender.send_replace(Some(found));
        }));
        Some(receiver)
    }

    /// The newest of memory, directory and service; told and remembered.
    async fn load(self: &Arc<Self>, key: &Key, reach: Reach, now: SystemTime) -> Found {
        let kept = lock(&self.memory).get(key);
        let mut damage = None;
        let disk = self.load_disk(key, now).await.unwrap_or_else(|problem| {
            (self.tell)(&format!("{}: {problem}; it is not used", self.directory.path(key).display()));
            damage = Some(Why::Damaged(problem));
            None
        });
        let refresh = kept.as_ref().is_some_and(|kept| usable(&kept.item, now));
        let asked = kept.as_ref().and_then(|kept| kept.asked);
        let best = newest(kept.map(|kept| kept.item), disk.clone());
        if let Some(item) = best.clone().filter(|item| !refresh && usable(item, now)) {
            // Whether there is a newer list is looked up at its next use.
            self.keep(key, &item, None);
            return Found { item: Some(item), note: None };
        }
        let fetched = match reach {
            Reach::Cache => Err(KdsError::NotAsked),
            Reach::Service => self.fetch(key, now).await,
        };
        let why = match fetched {
            Ok(item) => {
                let item = newest(best, Some(Arc::new(item)));
                let stale = item.as_ref().is_some_and(|item| !usable(item, now));
                if let Some(item) = &item {
                    if disk.is_none_or(|disk| disk.bytes() != item.bytes()) {
                        self.save(key, item).await;
                    }
                    self.keep(key, item, Some(now));
                }
                if !stale {
                    lock(&self.absent).remove(key);
                    return Found { item, note: None };
                }
                return self.without(
                    key,
                    reach,
                    now,
                    item,
                    Why::Unavailable("it is stale there too".to_owned()),
                );
            }
            // Nobody to ask: the look at the directory was the whole of it.
            Err(KdsError::NotAsked) if refresh => {
                if let Some(item) = &best {
                    self.keep(key, item, Some(now));
                }
                return Found { item: best, note: None };
            }
            Err(KdsError::NotAsked) => damage.unwrap_or(Why::NotCached),
            Err(KdsError::NotFound(detail)) => Why::NotFound(detail),
            Err(KdsError::Failed(detail)) => Why::Unavailable(detail),
        };
        if let Some(item) = &best {
            self.keep(key, item, asked);
        }
        self.without(key, reach, now, best, why)
    }

    /// Tells that there is none, or none that is good, and remembers it for a while.
    fn without(&self, key: &Key, reach: Reach, now: SystemTime, item: Option<Arc<Item>>, why: Why) -> Found {
        let note = Note::new(key, why);
        if matches!(note.why, Why::NotFound(_) | Why::Unavailable(_)) {
            (self.tell)(&note.detail());
        }
        let absent = Absent { until: now + ABSENT_FOR, reach, note: note.clone() };
        lock(&self.absent).insert(key.clone(), absent);
        Found { item, note: Some(note) }
    }

    async fn load_disk(self: &Arc<Self>, key: &Key, now: SystemTime) -> Result<Option<Arc<Item>>, String> {
        let (this, named) = (Arc::clone(self), key.clone());
        let read = tokio::task::spawn_blocking(move || this.directory.read(&named)).await;
        let bytes = match read {
            Ok(Ok(Some(bytes))) => bytes,
            Ok(Ok(None)) => return Ok(None),
            Ok(Err(error)) => return Err(chained(&error)),
            Err(_) => return Err("reading it failed".to_owned()),
        };
        let chain = self.chain(key, Reach::Cache, now).await;
        match Item::check(key, &bytes, chain.as_deref(), &self.roots) {
            Ok(item) => Ok(Some(Arc::new(item))),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn fetch(self: &Arc<Self>, key: &Key, now: SystemTime) -> Result<Item, KdsError> {
        if !self.kds.is_configured() {
            return Err(KdsError::NotAsked);
        }
        let chain = self.chain(key, Reach::Service, now).await;
        if let (Some(chain), None) = (key.chain(), &chain) {
            return Err(KdsError::Failed(format!("there is no {chain} to check it against")));
        }
        let _turn = match key {
            Key::Chain(..) | Key::Crl(..) => None,
            // The semaphore is never closed.
            _ => self.fetches.acquire().await.ok(),
        };
        self.kds.fetch(key, |bytes| Item::check(key, bytes, chain.as_deref(), &self.roots)).await
    }

    /// The chain that a piece is checked against.
    async fn chain(self: &Arc<Self>, key: &Key, reach: Reach, now: SystemTime) -> Option<Arc<Item>> {
        // A fetch is bounded by the services' patience.
        const LONG: Duration = Duration::from_secs(300);
        let chain = key.chain()?;
        Box::pin(self.get(&chain, reach, now, LONG)).await.item
    }

    /// The cloud providers of whom there are certificates.
    pub(crate) async fn csps(self: &Arc<Self>, now: SystemTime) -> Vec<Csp> {
        if let Some((at, csps)) = &*lock(&self.csps)
            && now.duration_since(*at).is_ok_and(|age| age < ABSENT_FOR)
        {
            return csps.clone();
        }
        let this = Arc::clone(self);
        let listed = tokio::task::spawn_blocking(move || this.directory.list()).await;
        let mut csps: Vec<Csp> = Vec::new();
        for listed in listed.into_iter().flatten().flatten() {
            if let Key::Vlek { csp, .. } = listed.key
                && csps.len() < CSPS
                && !csps.contains(&csp)
            {
                csps.push(csp);
            }
        }
        *lock(&self.csps) = Some((now, csps.clone()));
        csps
    }

    /// Remembers a piece.
    pub(crate) fn keep(&self, key: &Key, item: &Arc<Item>, asked: Option<SystemTime>) {
        lock(&self.memory).insert(key.clone(), Kept { item: Arc::clone(item), asked });
    }

    /// Writes a piece into the directory; a full or broken one is told, and the piece used from memory.
    pub(crate) async fn save(self: &Arc<Self>, key: &Key, item: &Arc<Item>) {
        let (this, named, kept) = (Arc::clone(self), key.clone(), Arc::clone(item));
        let written = tokio::task::spawn_blocking(move || this.directory.write(&named, kept.bytes())).await;
        if let Ok(Err(error)) = written {
            (self.tell)(&format!("{key} can't be kept: {}", chained(&error)));
        }
    }

    /// Checks `bytes` and, if they are `key`'s and not older than what is there, keeps and saves them.
    ///
    /// # Errors
    /// [`Note`], with what is wrong with them.
    pub async fn add(self: &Arc<Self>, key: &Key, bytes: &[u8], now: SystemTime) -> Result<Added, Note> {
        let refused = |error: ItemError| Note::new(key, Why::Refused(error));
        let chain = self.chain(key, Reach::Cache, now).await;
        let item = Arc::new(Item::check(key, bytes, chain.as_deref(), &self.roots).map_err(refused)?);
        let disk = self.load_disk(key, now).await.ok().flatten();
        if let Some(there) = &disk {
            if there.bytes() == item.bytes() {
                return Ok(Added::Same);
            }
            if let (Some(old), Some(new)) = (there.crl(), item.crl())
                && new.this_update < old.this_update
            {
                return Ok(Added::Older);
            }
        }
        let (this, named, kept) = (Arc::clone(self), key.clone(), Arc::clone(&item));
        let written = tokio::task::spawn_blocking(move || this.directory.write(&named, kept.bytes())).await;
        if let Ok(Err(error)) = written {
            return Err(Note::new(key, Why::Damaged(chained(&error))));
        }
        self.keep(key, &item, Some(now));
        lock(&self.absent).remove(key);
        *lock(&self.csps) = None;
        Ok(Added::New)
    }

    /// What a SEV or SEV-ES launch is checked against, by the `cpu0-id` that QEMU names.
    pub async fn sev(self: &Arc<Self>, cpu0_id: &[u8; 64], now: SystemTime, wait: Duration) -> Sev {
        let found = self.get(&Key::Cek(*cpu0_id), Reach::Service, now, wait).await;
        let cek = found.item.map(|item| item.bytes().to_vec());
        Sev { cek, authorities: self.sev_authorities(now, wait).await, note: found.note }
    }

    /// AMD's own certificates of SEV platforms: what is cached.
    pub async fn sev_authorities(self: &Arc<Self>, now: SystemTime, wait: Duration) -> Vec<Vec<u8>> {
        let mut authorities = Vec::new();
        for product in SevProduct::ALL {
            let found = self.get(&Key::SevChain(product), Reach::Cache, now, wait).await;
            authorities.extend(found.item.map(|item| item.bytes().to_vec()));
        }
        authorities
    }
}

/// Collateral of a SEV or SEV-ES launch.
#[derive(Debug, Default)]
pub struct Sev {
    /// The processor's CEK with AMD's signature, 2084 bytes.
    pub cek: Option<Vec<u8>>,
    /// ASK and ARK of each product that the cache has, one after the other.
    pub authorities: Vec<Vec<u8>>,
    /// Why there is no CEK.
    pub note: Option<Note>,
}

/// What became of bytes that were added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// Kept.
    New,
    /// There already.
    Same,
    /// A newer revocation list is there.
    Older,
}

/// Takes a flight off the list, however it ends.
struct Landing {
    collateral: Arc<Collateral>,
    flight: Flight,
}

impl Drop for Landing {
    fn drop(&mut self) {
        lock(&self.collateral.flights).remove(&self.flight);
    }
}

/// Lists go stale; certificates are offered whatever their dates, which the verifier checks.
fn usable(item: &Item, now: SystemTime) -> bool {
    item.crl().is_none_or(|crl| now <= crl.next_update)
}

/// The later one of two lists; else the second.
fn newest(first: Option<Arc<Item>>, second: Option<Arc<Item>>) -> Option<Arc<Item>> {
    match (first, second) {
        (Some(first), Some(second)) => match (first.crl(), second.crl()) {
            (Some(one), Some(other)) if one.this_update > other.this_update => Some(first),
            _ => Some(second),
        },
        (first, second) => second.or(first),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn chained(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
