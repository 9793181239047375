//! The pod's volumes as directories that the agent makes in guest memory: size, mode and group. The agent
//! acts on these plans; this crate touches no volume.

use sealed_spec::PodSpec;
use sealed_spec::podspec::{Quantity, VolumeSource};

/// One emptyDir volume to make, empty and before any container starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumePlan {
    /// The volume's name.
    pub name: String,
    /// Mode of its directory: 0777, with setgid where fsGroup asks for it.
    pub mode: u32,
    /// Group of its directory: the pod's fsGroup. Root's if none. The volume is new, so there is nothing in
    /// it to change, whatever fsGroupChangePolicy says.
    pub gid: Option<u32>,
    /// Bound of its tmpfs, bytes; `None` if the pod sets none.
    pub size_limit: Option<u64>,
}

/// What to make for each emptyDir of the pod. Both media live in guest memory: host storage would be clear.
pub fn volume_plans(pod: &PodSpec) -> Vec<VolumePlan> {
    let gid = pod.security_context.as_ref().and_then(|context| context.fs_group);
    pod.volumes
        .iter()
        .filter_map(|volume| match volume.source()? {
            VolumeSource::EmptyDir(dir) => Some((volume, dir)),
            _ => None,
        })
        .map(|(volume, dir)| VolumePlan {
            name: volume.name.clone(),
            mode: if gid.is_some() { 0o2777 } else { 0o777 },
            gid,
            size_limit: dir.size_limit.as_ref().map(Quantity::units).filter(|bytes| *bytes > 0),
        })
        .collect()
}

/// What fills a volume of the pod.
pub(crate) fn source<'a>(pod: &'a PodSpec, name: &str) -> Option<VolumeSource<'a>> {
    pod.volumes.iter().find(|volume| volume.name == name)?.source()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sealed_spec::podspec::{EmptyDir, PodSecurityContext, Volume};

    #[test]
    fn fs_group_owns_the_volumes() {
        let size_limit = Some(Quantity::parse("1Mi").unwrap());
        let volumes = vec![
            Volume { name: "a".into(), empty_dir: Some(EmptyDir::default()), ..Default::default() },
            Volume {
                name: "b".into(),
                empty_dir: Some(EmptyDir { size_limit, ..Default::default() }),
                ..Default::default()
            },
        ];
        let mut pod = PodSpec { volumes, ..Default::default() };
        let plan =
            |name: &str, mode, gid, size_limit| VolumePlan { name: name.into(), mode, gid, size_limit };
        assert_eq!(volume_plans(&pod), [plan("a", 0o777, None, None), plan("b", 0o777, None, Some(1 << 20))]);
        pod.security_context = Some(PodSecurityContext { fs_group: Some(2000), ..Default::default() });
        assert_eq!(
            volume_plans(&pod),
            [plan("a", 0o2777, Some(2000), None), plan("b", 0o2777, Some(2000), Some(1 << 20))]
        );
    }
}
