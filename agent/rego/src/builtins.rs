//! Functions that policies use and the engine lacks in this build, and bounds on those that can fill the
//! memory in one call.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use regorus::{Engine, Value};

type Function = fn(Vec<Value>) -> Option<Value>;

/// Longest list that a range makes.
const MAX_RANGE: i64 = 100_000;

/// Name, number of arguments. An answer of none is undefined, as with wrong arguments in Rego.
const FUNCTIONS: &[(&str, u8, Function)] = &[
    ("base64.encode", 1, |a| encode(&a, &STANDARD)),
    ("base64.decode", 1, |a| decode(&a, &STANDARD)),
    ("base64url.encode", 1, |a| encode(&a, &URL_SAFE)),
    ("base64url.encode_no_pad", 1, |a| encode(&a, &URL_SAFE_NO_PAD)),
    ("numbers.range", 2, |a| range(&a, 1)),
    ("numbers.range_step", 3, |a| range(&a, a.get(2)?.as_i64().ok().filter(|step| *step > 0)?)),
];

pub(crate) fn add_to(engine: &mut Engine) -> Result<(), PolicyFunction> {
    for (name, arguments, function) in FUNCTIONS {
        let function = |arguments| Ok(function(arguments).unwrap_or(Value::Undefined));
        engine
            .add_extension((*name).to_owned(), *arguments, Box::new(function))
            .map_err(|_| PolicyFunction(name))?;
    }
    Ok(())
}

/// A function that the engine didn't take.
pub(crate) struct PolicyFunction(pub(crate) &'static str);

fn encode(arguments: &[Value], alphabet: &base64::engine::GeneralPurpose) -> Option<Value> {
    Some(alphabet.encode(text(arguments)?).into())
}

fn decode(arguments: &[Value], alphabet: &base64::engine::GeneralPurpose) -> Option<Value> {
    let bytes = alphabet.decode(text(arguments)?).ok()?;
    Some(String::from_utf8(bytes).ok()?.into())
}

fn text(arguments: &[Value]) -> Option<&str> {
    arguments.first()?.as_string().ok().map(AsRef::as_ref)
}

/// From the first to the second, both included, up or down.
fn range(arguments: &[Value], step: i64) -> Option<Value> {
    let (from, to) = (arguments.first()?.as_i64().ok()?, arguments.get(1)?.as_i64().ok()?);
    let distance = to.checked_sub(from)?;
    if distance.checked_abs()? / step > MAX_RANGE {
        return None;
    }
    let steps = (0..=distance.abs() / step).map(|n| Value::from(from + n * step * distance.signum()));
    Some(Value::from(steps.collect::<Vec<_>>()))
}
