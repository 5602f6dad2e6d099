//! What `commit --change` says: lines of a Dockerfile that change what an image's containers do. Pure.

use croft_images::manifest::Defaults;
use serde_json::json;

/// Applies the lines in their order.
///
/// # Errors
/// In words, for a line that makes no sense.
pub fn apply(defaults: &mut Defaults, lines: &[String]) -> Result<(), String> {
    lines.iter().try_for_each(|line| one(defaults, line).map_err(|why| format!("change {line:?}: {why}")))
}

fn one(defaults: &mut Defaults, line: &str) -> Result<(), String> {
    let (word, rest) = line.trim().split_once(char::is_whitespace).unwrap_or((line.trim(), ""));
    let rest = rest.trim();
    let some = || if rest.is_empty() { Err("there is nothing after it".to_owned()) } else { Ok(rest) };
    match word.to_ascii_uppercase().as_str() {
        "CMD" => defaults.cmd = command(rest)?,
        "ENTRYPOINT" => {
            defaults.entrypoint = command(rest)?;
            // As in a Dockerfile: what was the arguments of the one before makes no sense for this one.
            defaults.cmd = Vec::new();
        }
        "ENV" => {
            for (name, value) in pairs(some()?)? {
                defaults.env.retain(|old| old.split('=').next() != Some(&name));
                defaults.env.push(format!("{name}={value}"));
            }
        }
        "LABEL" => defaults.labels.extend(pairs(some()?)?),
        "USER" => defaults.user = some()?.to_owned(),
        "WORKDIR" => {
            let folder = some()?;
            defaults.working_dir = match folder.starts_with('/') {
                true => folder.to_owned(),
                false => format!("{}/{folder}", defaults.working_dir.trim_end_matches('/')),
            };
            if !defaults.working_dir.starts_with('/') {
                defaults.working_dir.insert(0, '/');
            }
        }
        "EXPOSE" => {
            for port in words(some()?)? {
                let (number, protocol) = port.split_once('/').unwrap_or((&port, "tcp"));
                let is_port = number.parse::<u16>().is_ok_and(|number| number > 0);
                if !is_port || !["tcp", "udp", "sctp"].contains(&protocol) {
                    return Err(format!("{port:?} is no port: 80, 53/udp"));
                }
                defaults.exposed_ports.insert(format!("{number}/{protocol}"), json!({}));
            }
        }
        "VOLUME" => {
            let folders = if rest.starts_with('[') { command(rest)? } else { words(some()?)? };
            match folders.iter().find(|folder| !folder.starts_with('/')) {
                Some(folder) => return Err(format!("{folder:?} is no absolute path")),
                None => defaults.volumes.extend(folders.into_iter().map(|folder| (folder, json!({})))),
            }
        }
        "STOPSIGNAL" => {
            crate::signals::number(some()?).map_err(|problem| problem.detail)?;
            defaults.stop_signal = rest.to_owned();
        }
        _ => {
            return Err(format!(
                "{word:?} is none of CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME, WORKDIR"
            ));
        }
    }
    Ok(())
}

/// A list in JSON, or a line for a shell; nothing for nothing.
fn command(text: &str) -> Result<Vec<String>, String> {
    match text {
        "" => Ok(Vec::new()),
        list if list.starts_with('[') => {
            serde_json::from_str(list).map_err(|e| format!("is no list of words in JSON: {e}"))
        }
        line => Ok(["/bin/sh", "-c", line].map(str::to_owned).into()),
    }
}

/// `NAME=VALUE ...`, or one `NAME VALUE`.
fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let first = text.split_whitespace().next().unwrap_or_default();
    if !first.contains('=') {
        let (name, value) =
            text.split_once(char::is_whitespace).ok_or_else(|| format!("{text:?} has no value"))?;
        return Ok(vec![(name.to_owned(), value.trim().to_owned())]);
    }
    let pair = |word: String| match word.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("{word:?} is not NAME=VALUE")),
    };
    words(text)?.into_iter().map(pair).collect()
}

/// Words between blanks; quotes and backslashes keep blanks in them.
fn words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (Some(open), _) if letter == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => {
                let next = letters.next().ok_or("it ends with a backslash")?;
                word.get_or_insert_default().push(next);
            }
            (None, _) if letter.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed".to_owned());
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(lines: &[&str]) -> Result<Defaults, String> {
        let mut defaults = Defaults {
            env: vec!["A=old".into(), "B=kept".into()],
            cmd: vec!["old".into()],
            working_dir: "/srv".into(),
            ..Defaults::default()
        };
        let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        apply(&mut defaults, &lines).map(|()| defaults)
    }

    #[test]
    fn lines_of_a_dockerfile_change_what_containers_do() {
        let made = changed(&[
            r#"ENTRYPOINT ["/run", "a b"]"#,
            "cmd echo hello",
            "ENV A=new C='x y' D=a\\ b",
            "ENV E one word",
            "USER www:www",
            "WORKDIR sub/dir",
            "EXPOSE 80 53/udp",
            r#"LABEL a.b="quoted ' text" c=d"#,
            r#"VOLUME ["/data", "/more"]"#,
            "STOPSIGNAL SIGINT",
        ])
        .unwrap();
        assert_eq!(made.entrypoint, ["/run", "a b"]);
        assert_eq!(made.cmd, ["/bin/sh", "-c", "echo hello"]);
        assert_eq!(made.env, ["B=kept", "A=new", "C=x y", "D=a b", "E=one word"]);
        assert_eq!((made.user.as_str(), made.working_dir.as_str()), ("www:www", "/srv/sub/dir"));
        assert_eq!(made.exposed_ports.keys().collect::<Vec<_>>(), ["53/udp", "80/tcp"]);
        assert_eq!(made.labels["a.b"], "quoted ' text");
        assert_eq!(made.volumes.keys().collect::<Vec<_>>(), ["/data", "/more"]);
        assert_eq!(made.stop_signal, "SIGINT");
        assert_eq!(changed(&["ENTRYPOINT []"]).unwrap().cmd, [""; 0], "its arguments go with it");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "FLY away",
            "ENV",
            "ENV =x",
            "ENV A",
            "CMD [1]",
            "CMD [\"a\"",
            "EXPOSE none",
            "EXPOSE 0",
            "LABEL a='b",
            "VOLUME data",
            "STOPSIGNAL FLY",
            "USER",
            "",
        ] {
            assert!(changed(&[line]).is_err(), "{line:?}");
        }
    }
}
