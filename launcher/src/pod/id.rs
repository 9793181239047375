//! Ids as containerd makes them.

use super::PodError;

/// 64 lower hex digits, random.
///
/// # Errors
/// [`PodError::Id`] when the machine has no random numbers.
pub fn new_id() -> Result<String, PodError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| PodError::Id(error.to_string()))?;
    Ok(hex::encode(bytes))
}
