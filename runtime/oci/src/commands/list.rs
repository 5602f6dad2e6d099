//! `list`.

use std::process::ExitCode;

use anyhow::Result;
use croft_engine::state::StateRoot;

use crate::args::{ListArgs, ListFormat};

/// Lists the containers.
pub fn run(root: &StateRoot, args: &ListArgs) -> Result<ExitCode> {
    let all = croft_engine::status::list(root)?;
    if args.quiet {
        all.iter().for_each(|c| println!("{}", c.id));
    } else if args.format == ListFormat::Json {
        println!("{}", serde_json::to_string(&all)?);
    } else {
        let width = all.iter().map(|c| c.id.len()).max().unwrap_or(0).max(2);
        println!("{:width$}  {:<8}  {:<8}  {:<30}  BUNDLE  OWNER", "ID", "PID", "STATUS", "CREATED");
        for c in all {
            let bundle = c.bundle.display();
            println!(
                "{:width$}  {:<8}  {:<8}  {:<30}  {bundle}  {}",
                c.id,
                c.pid,
                c.status.word(),
                c.created,
                c.owner
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}
