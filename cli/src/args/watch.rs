//! `stats` and `top`.

use std::time::Duration;

use clap::Args;

#[derive(Debug, Args)]
pub struct StatsArgs {
    /// Print once and end
    #[arg(long)]
    pub no_stream: bool,
    /// Print ids in full
    #[arg(long)]
    pub no_trunc: bool,
    #[arg(help = "Seconds between two looks", long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub interval: Duration,
    /// The containers' names or ids; all that run without any
    #[arg(value_name = "CONTAINER", add = crate::complete::containers())]
    pub names: Vec<String>,
}

#[derive(Debug, Args)]
pub struct TopArgs {
    #[arg(help = "Seconds between two looks", short = 'd', long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub interval: Duration,
    /// The container whose processes are listed; a screen with all containers without it
    #[arg(value_name = "CONTAINER", add = crate::complete::containers())]
    pub name: Option<String>,
}

/// A time in seconds with a fraction, within what croftd takes.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: Option<f64> = text.parse().ok();
    match seconds {
        Some(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(format!("{text:?} is no time from 0.1 to 3600 seconds")),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn intervals_have_bounds() {
        assert_eq!(super::seconds("0.5").unwrap().as_millis(), 500);
        assert!(
            super::seconds("0").is_err() && super::seconds("-1").is_err() && super::seconds("NaN").is_err()
        );
    }
}
