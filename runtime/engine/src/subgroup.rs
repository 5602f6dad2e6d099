//! `exec --cgroup`: a group below the container's own.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use croft_plan::build::Groups;

use crate::error::{Error, Result};

/// What the options ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subgroups {
    /// In every hierarchy.
    everywhere: Option<String>,
    /// In the hierarchy of a controller.
    of: BTreeMap<String, String>,
}

impl Subgroups {
    /// Reads `PATH` (at most once) or `CONTROLLER[,CONTROLLER]:PATH`.
    ///
    /// # Errors
    /// For anything else.
    pub fn parse(options: &[String]) -> Result<Self> {
        let bad = |text: &str, why: &str| Error::refused(format!("invalid --cgroup argument: {text}"), why);
        let mut found = Subgroups::default();
        for text in options {
            match text.split(':').collect::<Vec<_>>()[..] {
                [path] if options.len() == 1 => found.everywhere = Some(path.to_owned()),
                [_] => return Err(bad(text, "missing <controller>: prefix")),
                [controllers, path] => {
                    found.of.extend(controllers.split(',').map(|c| (c.to_owned(), path.to_owned())));
                }
                _ => return Err(bad(text, "has more than one colon")),
            }
        }
        Ok(found)
    }

    /// The group for the new process, where the container's is `dir` with `controllers` (none: cgroup2).
    ///
    /// # Errors
    /// When the path leads out of the container's group.
    pub fn below(&self, dir: &Path, controllers: &[String]) -> Result<PathBuf> {
        let named = || controllers.iter().find_map(|c| self.of.get(c));
        let Some(path) = self.everywhere.as_ref().or_else(named) else { return Ok(dir.to_owned()) };
        let mut found = dir.to_owned();
        for part in Path::new(path).components() {
            match part {
                Component::Normal(name) => found.push(name),
                Component::ParentDir => {
                    return Err(Error::refused("--cgroup", format!("{path} is not a sub cgroup path")));
                }
                _ => {}
            }
        }
        Ok(found)
    }

    /// Refuses a controller that no group of the container has.
    ///
    /// # Errors
    /// As said.
    pub fn check_known(&self, groups: &Groups) -> Result<()> {
        let known = |name: &String| groups.v1.iter().any(|g| g.controllers.contains(name));
        match self.of.keys().find(|name| !known(name)) {
            Some(name) => {
                Err(Error::refused("--cgroup", format!("unknown controller {name} in SubCgroupPaths")))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[&str]) -> Result<Subgroups> {
        Subgroups::parse(&options.iter().map(|o| (*o).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn paths_stay_below_the_containers_group() {
        let own = Path::new("/cg/c");
        let cpu = ["cpu".to_owned()];
        assert_eq!(parse(&["/a/b"]).unwrap().below(own, &[]).unwrap(), Path::new("/cg/c/a/b"));
        assert_eq!(parse(&["cpu,memory:a"]).unwrap().below(own, &cpu).unwrap(), Path::new("/cg/c/a"));
        assert_eq!(parse(&["memory:a"]).unwrap().below(own, &cpu).unwrap(), own);
        assert_eq!(parse(&["cpu:a", "memory:b"]).unwrap().below(own, &[]).unwrap(), own);
        assert!(parse(&["a/../../x"]).unwrap().below(own, &[]).is_err());
        assert!(parse(&["a", "b"]).is_err() && parse(&["a:b:c"]).is_err());
        assert!(parse(&["cpu:a"]).unwrap().check_known(&Groups::default()).is_err());
    }
}
