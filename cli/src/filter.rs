//! Which containers `ps` lists: `--filter`, `--last`.

use croft_api::container::{Container, NetworkMode, State};

/// One `--filter KEY=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// What it does.
    Status(State),
    /// A part of its name.
    Name(String),
    /// How its id begins.
    Id(String),
    /// A label that it has, and its value.
    Label(String, Option<String>),
    /// The network that it is on.
    Network(String),
}

/// Reads one.
///
/// # Errors
/// In words.
pub fn parse(text: &str) -> Result<Filter, String> {
    const KEYS: &str = "status, name, id, label, network";
    let (key, value) = text.split_once('=').ok_or_else(|| format!("{text:?} has no '=': name=web"))?;
    Ok(match key {
        "status" => Filter::Status(match value {
            "created" => State::Created,
            "running" => State::Running,
            "paused" => State::Paused,
            "exited" | "stopped" => State::Stopped,
            _ => return Err(format!("{value:?} is no status: created, running, paused, exited")),
        }),
        "name" => Filter::Name(value.to_owned()),
        "id" => Filter::Id(value.to_owned()),
        "label" => match value.split_once('=') {
            Some((label, value)) => Filter::Label(label.to_owned(), Some(value.to_owned())),
            None => Filter::Label(value.to_owned(), None),
        },
        "network" => Filter::Network(value.to_owned()),
        _ => return Err(format!("there is no filter {key:?}: {KEYS}")),
    })
}

impl Filter {
    fn lets_through(&self, container: &Container) -> bool {
        match self {
            Filter::Status(state) => container.state == *state,
            Filter::Name(part) => container.name.contains(part),
            Filter::Id(beginning) => container.id.starts_with(beginning),
            Filter::Label(label, wanted) => {
                let value = container.config.labels.get(label);
                value.is_some_and(|value| wanted.as_ref().is_none_or(|wanted| wanted == value))
            }
            Filter::Network(name) => match &container.config.network {
                NetworkMode::Networks(joined) => joined.iter().any(|join| join.network == *name),
                NetworkMode::None => name == "none",
                NetworkMode::Host => name == "host",
                NetworkMode::Container(other) => name.strip_prefix("container:") == Some(other),
            },
        }
    }
}

/// Those that every kind of filter lets through. Of several of a kind one is enough; of labels all are needed.
pub fn keep(containers: &mut Vec<Container>, filters: &[Filter]) {
    containers.retain(|container| {
        filters.iter().all(|filter| {
            let kind = std::mem::discriminant(filter);
            let mut alike = filters.iter().filter(|other| std::mem::discriminant(*other) == kind);
            match filter {
                Filter::Label(..) => filter.lets_through(container),
                _ => alike.any(|filter| filter.lets_through(container)),
            }
        })
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(name: &str, state: State, labels: &[(&str, &str)]) -> Container {
        let text = serde_json::json!({
            "id": format!("{name}0123"), "name": name, "state": state, "created": "", "image_id": "",
            "config": { "image": "box", "labels": labels.iter().copied().collect::<std::collections::BTreeMap<_, _>>() },
        });
        serde_json::from_value(text).unwrap()
    }

    fn kept(filters: &[&str]) -> String {
        let mut all = vec![
            container("web", State::Running, &[("tier", "front"), ("zone", "a")]),
            container("db", State::Stopped, &[("tier", "back")]),
            container("cache", State::Paused, &[]),
        ];
        let filters: Vec<Filter> = filters.iter().map(|text| parse(text).unwrap()).collect();
        keep(&mut all, &filters);
        all.iter().map(|container| container.name.as_str()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn filters_are_docker_s() {
        assert_eq!(kept(&[]), "web db cache");
        assert_eq!(kept(&["status=running", "status=exited"]), "web db");
        assert_eq!(kept(&["name=e", "status=paused"]), "cache");
        assert_eq!(kept(&["label=tier"]), "web db");
        assert_eq!(kept(&["label=tier=front", "label=zone"]), "web");
        assert_eq!(kept(&["label=tier=front", "label=tier=back"]), "");
        assert_eq!(kept(&["network=croft", "id=db"]), "db");
        assert_eq!(kept(&["network=host"]), "");
        assert!(parse("colour=red").unwrap_err().contains("status, name") && parse("x").is_err());
        assert!(parse("status=bored").is_err());
    }
}
