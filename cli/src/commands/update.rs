//! `update`.

use croft_api::client::Client;
use croft_api::container::Update;

use crate::output::Shown;

use super::{Failed, part, report};
use crate::args::UpdateArgs;
use crate::config::options;

/// Changes limits and policies, and prints the names of the containers that have them then.
///
/// # Errors
/// When nothing is asked, and for the last that failed; the others are done.
pub async fn run(client: &Client, args: &UpdateArgs, shown: Shown) -> Result<u8, Failed> {
    let asked = Update { limits: options::limits(&args.limits), restart: args.restart };
    if asked == Update::default() {
        return Err(Failed::from(
            "update: nothing is asked: --memory, --cpus, --restart and others".to_owned(),
        ));
    }
    let mut failed = None;
    for name in &args.names {
        let path = format!("/containers/{}/update", part(name));
        report(client.post::<_, ()>(&path, &asked).await, name, shown, &mut failed);
    }
    failed.map_or(Ok(0), Err)
}
