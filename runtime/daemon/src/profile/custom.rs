//! A user's own profile of system calls: `linux.seccomp` as it is, or the form in which Docker's users write it, with rules that hold for
//! some capabilities, architectures and kernels only.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

/// This architecture in Go's words and in seccomp's.
const HERE: (&str, &str) = ("amd64", "SCMP_ARCH_X86_64");

/// `linux.seccomp` of `profile` for a container with these capabilities on this kernel.
///
/// # Errors
/// In words, for what is no profile.
pub fn custom(profile: &Value, capabilities: &BTreeSet<String>, kernel: (u32, u32)) -> Result<Value, String> {
    let mut made = profile.as_object().cloned().ok_or("is no JSON object")?;
    if !made.get("defaultAction").is_some_and(Value::is_string) {
        return Err("has no defaultAction".to_owned());
    }
    if let Some(map) = made.remove("archMap")
        && made.get("architectures").is_none_or(|list| list.as_array().is_none_or(Vec::is_empty))
    {
        made.insert("architectures".to_owned(), architectures(&map).into());
    }
    if let Some(rules) = made.get_mut("syscalls").filter(|rules| !rules.is_null()) {
        let rules = rules.as_array_mut().ok_or("syscalls: is no list")?;
        let mut kept = Vec::new();
        for mut rule in std::mem::take(rules) {
            let rule_of = rule.as_object_mut().ok_or("syscalls: has something that is no rule")?;
            let [includes, excludes] = ["includes", "excludes"].map(|name| rule_of.remove(name));
            rule_of.remove("comment");
            if let Some(name) = rule_of.remove("name").filter(|name| name.is_string()) {
                rule_of.insert("names".to_owned(), json!([name]));
            }
            let holds = |when: &Option<Value>, otherwise| match when.as_ref().and_then(Value::as_object) {
                Some(when) if !when.is_empty() => Condition(when).holds(capabilities, kernel, otherwise),
                _ => Ok(otherwise == Empty::Holds),
            };
            if holds(&includes, Empty::Holds)? && !holds(&excludes, Empty::HoldsNot)? {
                kept.push(rule);
            }
        }
        *rules = kept;
    }
    Ok(made.into())
}

/// What no condition at all means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Empty {
    /// The rule is in: nothing has to be so.
    Holds,
    /// The rule is not out: nothing speaks against it.
    HoldsNot,
}

struct Condition<'a>(&'a Map<String, Value>);

impl Condition<'_> {
    /// An including condition holds when all of it does, an excluding one when anything of it does.
    fn holds(
        &self,
        capabilities: &BTreeSet<String>,
        kernel: (u32, u32),
        empty: Empty,
    ) -> Result<bool, String> {
        let mut parts = Vec::new();
        let words = |name: &str| -> Vec<&str> {
            let list = self.0.get(name).and_then(Value::as_array);
            list.into_iter().flatten().filter_map(Value::as_str).collect()
        };
        let arches = words("arches");
        if !arches.is_empty() {
            parts.push(arches.contains(&HERE.0));
        }
        for capability in words("caps") {
            parts.push(capabilities.contains(capability.strip_prefix("CAP_").unwrap_or(capability)));
        }
        if let Some(least) = self.0.get("minKernel").and_then(Value::as_str) {
            let number = |text: Option<&str>| text.and_then(|text| text.parse::<u32>().ok());
            let mut numbers = least.split('.');
            let (Some(major), Some(minor)) = (number(numbers.next()), number(numbers.next())) else {
                return Err(format!("minKernel: {least:?} is no version"));
            };
            parts.push(kernel >= (major, minor));
        }
        Ok(match empty {
            Empty::Holds => parts.iter().all(|part| *part),
            Empty::HoldsNot => parts.iter().any(|part| *part),
        })
    }
}

/// This architecture, with those below it that programs may be of.
fn architectures(map: &Value) -> Vec<Value> {
    let entries = map.as_array().into_iter().flatten();
    let here = entries.into_iter().find(|entry| entry["architecture"] == HERE.1);
    let below = here.and_then(|entry| entry["subArchitectures"].as_array()).into_iter().flatten();
    std::iter::once(json!(HERE.1)).chain(below.cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_hold_for_capabilities_architectures_and_kernels() {
        let rule = |name: &str, includes: Value, excludes: Value| json!({"names": [name], "action": "SCMP_ACT_ALLOW", "comment": "", "includes": includes, "excludes": excludes});
        let profile = json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
            "syscalls": [
                rule("always", json!({}), Value::Null),
                rule("with", json!({"caps": ["CAP_SYS_ADMIN"]}), json!({})),
                rule("without", json!({}), json!({"caps": ["CAP_SYS_ADMIN"]})),
                rule("arm", json!({"arches": ["arm64"]}), json!({})),
                rule("new", json!({"minKernel": "5.1"}), json!({})),
            ],
        });
        let names = |capabilities: &[&str], kernel| {
            let capabilities = capabilities.iter().map(|c| (*c).to_owned()).collect();
            let made = custom(&profile, &capabilities, kernel).unwrap();
            assert_eq!(made["architectures"], json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]));
            assert!(made.get("archMap").is_none());
            let rules = made["syscalls"].as_array().unwrap().clone();
            assert!(rules.iter().all(|rule| rule.get("includes").is_none() && rule.get("comment").is_none()));
            rules.iter().map(|rule| rule["names"][0].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(&[], (6, 12)), ["always", "without", "new"]);
        assert_eq!(names(&["SYS_ADMIN"], (4, 19)), ["always", "with"]);
    }

    #[test]
    fn what_is_no_profile_is_refused() {
        let refused = |profile: Value| custom(&profile, &BTreeSet::new(), (6, 1)).unwrap_err();
        assert!(refused(json!([])).contains("object"));
        assert!(refused(json!({})).contains("defaultAction"));
        let bad =
            json!({"defaultAction": "x", "syscalls": [{"names": [], "includes": {"minKernel": "new"}}]});
        assert!(refused(bad).contains("minKernel"));
    }
}
