//! `list`.

use std::process::ExitCode;

use anyhow::Result;
use croft_engine::report::ContainerState;
use croft_engine::state::StateRoot;

use crate::args::{Global, ListArgs, ListFormat};

/// Lists the containers.
pub fn run(global: &Global, root: &StateRoot, args: &ListArgs) -> Result<ExitCode> {
    let (all, unreadable) = croft_engine::status::list(root)?;
    for error in unreadable {
        super::log(global, "warning", &format!("{:#}", anyhow::Error::from(error)));
    }
    let text = match (args.quiet, args.format) {
        (true, _) => all.iter().map(|c| format!("{}\n", c.id)).collect(),
        (false, ListFormat::Json) => format!("{}\n", serde_json::to_string(&all)?),
        (false, ListFormat::Table) => table(&all),
    };
    super::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// runc's columns: as wide as their longest cell and three blanks, at least twelve; the last one is not filled up.
fn table(all: &[ContainerState]) -> String {
    let heading = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned);
    let row = |c: &ContainerState| {
        let bundle = c.bundle.display().to_string();
        [
            c.id.clone(),
            c.pid.to_string(),
            c.status.word().to_owned(),
            bundle,
            c.created.clone(),
            c.owner.clone(),
        ]
    };
    let rows: Vec<[String; 6]> = std::iter::once(heading).chain(all.iter().map(row)).collect();
    let width = |column: usize| {
        rows.iter().map(|row| row[column].chars().count() + 3).max().unwrap_or_default().max(12)
    };
    let mut text = String::new();
    for row in &rows {
        for (column, cell) in row.iter().enumerate().take(5) {
            text.push_str(&format!("{cell:<width$}", width = width(column)));
        }
        text.push_str(&row[5]);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_empty_list_is_its_heading() {
        // What runc 1.1.5 prints.
        let want = "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n";
        assert_eq!(super::table(&[]), want);
    }
}
