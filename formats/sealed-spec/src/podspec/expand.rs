//! `$(NAME)` in commands, arguments and environment values (Kubernetes: "Use dependent environment
//! variables"): `$$` is a dollar sign, a name that isn't known stays as written.

/// Replaces references by what `lookup` gives.
pub fn expand<'v>(text: &str, lookup: impl Fn(&str) -> Option<&'v str>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        rest = &rest[dollar + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|r| r.split_once(')')) {
            match lookup(name) {
                Some(value) => out.push_str(value),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_abc(text: &str) -> String {
        expand(text, |name| match name {
            "A" => Some("1"),
            "B" => Some("$(A)"),
            "EMPTY" => Some(""),
            _ => None,
        })
    }

    #[test]
    fn follows_kubernetes() {
        for (text, want) in [
            ("$(A)", "1"),
            ("x$(A)y$(A)", "x1y1"),
            // Values are not expanded a second time.
            ("$(B)", "$(A)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$$$$", "$$"),
            ("$(EMPTY)|", "|"),
            ("$(UNKNOWN)", "$(UNKNOWN)"),
            ("$()", "$()"),
            ("$(A", "$(A"),
            ("$A ${A} $", "$A ${A} $"),
            ("$($(A))", "$($(A))"),
            ("é$(A)é", "é1é"),
        ] {
            assert_eq!(with_abc(text), want, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn text_without_a_dollar_is_untouched(text in "[^$]{0,64}") {
            proptest::prop_assert_eq!(with_abc(&text), text);
        }

        #[test]
        fn doubled_dollars_escape_everything(text in ".{0,64}") {
            proptest::prop_assert_eq!(with_abc(&text.replace('$', "$$")), text);
        }
    }
}
