//! What the host asked for before the sealed specification was open: there was nothing to check it against
//! then. It is recorded, within bounds, and checked when the specification opens; a host that asked for what
//! the specification excludes has no guest any more.

use std::any::Any;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use protocols::agent as wire;
use protocols::refusal::{Code, Refusal};
use sealed_spec::podspec::{DnsPolicy, PodSpec};

/// Facts that are recorded; a usual pod makes about twenty.
const MAX_FACTS: usize = 1024;

/// Something that a request asked for and the specification may exclude.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fact {
    /// CreateSandbox' host name.
    Hostname(String),
    /// CreateSandbox asked for one pid namespace.
    SharedPids,
    /// An interface gets this address.
    Own(IpAddr),
}

/// The record.
#[derive(Default)]
pub struct Record(Mutex<Books>);

#[derive(Default)]
struct Books {
    facts: Vec<Fact>,
    /// How often each RPC was called.
    calls: BTreeMap<&'static str, u64>,
    /// The specification is open and has seen all of this.
    settled: bool,
}

impl Record {
    /// Notes a request. False: the specification is open by now, and decides.
    pub fn note(&self, rpc: &'static str, request: &dyn Any) -> Result<bool, Refusal> {
        let mut books = self.books();
        if books.settled {
            return Ok(false);
        }
        let facts = facts(request);
        if books.facts.len() + facts.len() > MAX_FACTS {
            return Err(Refusal::new(
                Code::SpecNotOpen,
                format!("{rpc}: more than {MAX_FACTS} things were asked for before the sealed spec was open"),
            ));
        }
        for fact in facts {
            if !books.facts.contains(&fact) {
                books.facts.push(fact);
            }
        }
        *books.calls.entry(rpc).or_default() += 1;
        Ok(true)
    }

    /// Checks everything against the specification, which from now on decides itself. Returns what was
    /// called how often, for the record on the console.
    pub fn settle(&self, pod: &PodSpec) -> Result<String, Refusal> {
        let mut books = self.books();
        books.settled = true;
        books.facts.iter().try_for_each(|fact| fact.check(pod))?;
        books.facts = Vec::new();
        let calls = std::mem::take(&mut books.calls);
        let calls: Vec<String> = calls.iter().map(|(rpc, times)| format!("{rpc} {times}")).collect();
        Ok(calls.join(", "))
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Checks a request against the open specification.
pub fn check(pod: &PodSpec, request: &dyn Any) -> Result<(), Refusal> {
    facts(request).iter().try_for_each(|fact| fact.check(pod))
}

/// What can't be read is no fact: whoever carries the request out refuses it.
fn facts(request: &dyn Any) -> Vec<Fact> {
    let ip = |text: &str| text.split('/').next().and_then(|ip| ip.parse::<IpAddr>().ok());
    if let Some(request) = request.downcast_ref::<wire::CreateSandboxRequest>() {
        let mut facts = Vec::new();
        if !request.hostname.is_empty() {
            facts.push(Fact::Hostname(request.hostname.chars().take(256).collect()));
        }
        if request.sandbox_pidns {
            facts.push(Fact::SharedPids);
        }
        return facts;
    }
    if let Some(request) = request.downcast_ref::<wire::UpdateInterfaceRequest>() {
        let addresses = request.interface.iter().flat_map(|interface| &interface.IPAddresses);
        return addresses.filter_map(|address| ip(&address.address)).map(Fact::Own).collect();
    }
    Vec::new()
}

impl Fact {
    fn check(&self, pod: &PodSpec) -> Result<(), Refusal> {
        match self {
            Self::Hostname(name) => check_hostname(pod, name),
            Self::SharedPids if pod.share_process_namespace != Some(true) => Err(Refusal::new(
                Code::RpcDenied,
                "CreateSandbox asked for a shared pid namespace, which the sealed spec doesn't have",
            )),
            Self::SharedPids => Ok(()),
            // Whoever the pod's owner named by address is outside the pod.
            Self::Own(ip) if named_by_owner(pod, *ip) => Err(Refusal::new(
                Code::NetworkDenied,
                "an interface of the pod was given an address that the sealed spec names as somebody else's",
            )),
            Self::Own(_) => Ok(()),
        }
    }
}

/// The kubelet takes the pod's own host name, or its full name.
fn check_hostname(pod: &PodSpec, name: &str) -> Result<(), Refusal> {
    let Some(sealed) = &pod.hostname else { return Ok(()) };
    let rest = name.strip_prefix(sealed.as_str());
    if rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.')) {
        return Ok(());
    }
    Err(Refusal::new(Code::RpcDenied, "CreateSandbox asked for another host name than the sealed one"))
}

fn named_by_owner(pod: &PodSpec, ip: IpAddr) -> bool {
    let is = |text: &String| text.parse::<IpAddr>().is_ok_and(|other| other == ip);
    let servers = pod.dns_config.iter().flat_map(|config| &config.nameservers);
    // Aliases of the pod itself are loopback addresses.
    let aliases = pod.host_aliases.iter().map(|alias| &alias.ip);
    let own_servers = pod.dns_policy == Some(DnsPolicy::None);
    aliases.chain(servers.filter(|_| own_servers)).any(is)
}

#[cfg(test)]
mod tests {
    use protocols::types;
    use sealed_spec::podspec::HostAlias;

    use super::*;

    fn sandbox(hostname: &str, shared: bool) -> wire::CreateSandboxRequest {
        let mut request = wire::CreateSandboxRequest::new();
        request.hostname = hostname.into();
        request.sandbox_pidns = shared;
        request
    }

    fn interface(ip: &str) -> wire::UpdateInterfaceRequest {
        let mut address = types::IPAddress::new();
        address.address = ip.into();
        let mut interface = types::Interface::new();
        interface.IPAddresses = vec![address];
        let mut request = wire::UpdateInterfaceRequest::new();
        request.interface = Some(interface).into();
        request
    }

    fn pod() -> PodSpec {
        let alias = HostAlias { ip: "10.9.9.9".into(), hostnames: vec!["db".into()] };
        PodSpec { hostname: Some("web".into()), host_aliases: vec![alias], ..PodSpec::default() }
    }

    fn code(request: &dyn Any) -> Option<Code> {
        let record = Record::default();
        assert!(record.note("X", request).unwrap());
        let later = record.settle(&pod()).err().map(|refusal| refusal.code);
        assert_eq!(check(&pod(), request).err().map(|refusal| refusal.code), later, "before and after");
        later
    }

    #[test]
    fn what_the_spec_excludes_is_found_when_it_opens() {
        assert_eq!(code(&sandbox("evil", false)), Some(Code::RpcDenied));
        assert_eq!(code(&sandbox("webby", false)), Some(Code::RpcDenied));
        assert_eq!(code(&sandbox("web", true)), Some(Code::RpcDenied));
        assert_eq!(code(&interface("10.9.9.9")), Some(Code::NetworkDenied));
    }

    #[test]
    fn what_the_kubelet_does_is_fine() {
        for request in [sandbox("web", false), sandbox("web.ns.svc.cluster.local", false), sandbox("", false)]
        {
            assert_eq!(code(&request), None);
        }
        assert_eq!(code(&interface("10.0.0.5")), None);
        assert_eq!(code(&wire::CopyFileRequest::new()), None);
        let record = Record::default();
        record.note("CreateSandbox", &sandbox("x", true)).unwrap();
        let open = PodSpec { share_process_namespace: Some(true), ..PodSpec::default() };
        assert_eq!(record.settle(&open).unwrap(), "CreateSandbox 1");
    }

    #[test]
    fn the_record_is_bounded_and_ends_with_the_opening() {
        let record = Record::default();
        for n in 0..MAX_FACTS {
            record.note("UpdateInterface", &interface(&format!("10.1.{}.{}", n / 256, n % 256))).unwrap();
        }
        assert_eq!(
            record.note("UpdateInterface", &interface("10.2.0.1")).unwrap_err().code,
            Code::SpecNotOpen
        );
        record.settle(&PodSpec::default()).unwrap();
        assert!(!record.note("UpdateInterface", &interface("10.2.0.1")).unwrap(), "the spec decides by now");
    }
}
