//! What `top` shows, and what its keys do.

use std::cmp::Ordering;

use croft_api::stats::Stats;
use ratatui::Frame;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Modifier, Style};
use ratatui::widgets::{Paragraph, Row, Table, TableState};

use crate::commands::stats::{memory_percent, pressure};
use crate::output;

/// Whether it goes on after a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Draw again.
    GoOn,
    /// Leave.
    End,
}

/// One column: its key, its head, its width, its text, and its order (the most first; names from A).
struct Column {
    key: char,
    head: &'static str,
    width: u16,
    text: fn(&Stats) -> String,
    order: fn(&Stats, &Stats) -> Ordering,
}

const COLUMNS: &[Column] = &[
    Column { key: 'n', head: "NAME", width: 20, text: |s| s.name.clone(), order: |a, b| a.name.cmp(&b.name) },
    Column {
        key: 's',
        head: "CPU(sec)",
        width: 9,
        text: |s| (s.cpu_ns / 1_000_000_000).to_string(),
        order: |a, b| b.cpu_ns.cmp(&a.cpu_ns),
    },
    Column {
        key: 'c',
        head: "CPU(%)",
        width: 7,
        text: |s| format!("{:.1}", s.cpu_percent),
        order: |a, b| b.cpu_percent.total_cmp(&a.cpu_percent),
    },
    Column {
        key: 'm',
        head: "MEM",
        width: 10,
        text: |s| output::binary(s.memory),
        order: |a, b| b.memory.cmp(&a.memory),
    },
    Column {
        key: '%',
        head: "MEM(%)",
        width: 7,
        text: |s| format!("{:.1}", memory_percent(s)),
        order: |a, b| memory_percent(b).total_cmp(&memory_percent(a)),
    },
    Column {
        key: 'l',
        head: "LIMIT",
        width: 10,
        text: |s| output::binary(s.memory_limit),
        order: |a, b| b.memory_limit.cmp(&a.memory_limit),
    },
    Column {
        key: 'p',
        head: "PIDS",
        width: 6,
        text: |s| s.pids.to_string(),
        order: |a, b| b.pids.cmp(&a.pids),
    },
    Column {
        key: 't',
        head: "NETTX",
        width: 9,
        text: |s| s.network.map_or("--".into(), |n| output::size(n.sent_bytes)),
        order: |a, b| b.network.map(|n| n.sent_bytes).cmp(&a.network.map(|n| n.sent_bytes)),
    },
    Column {
        key: 'x',
        head: "NETRX",
        width: 9,
        text: |s| s.network.map_or("--".into(), |n| output::size(n.received_bytes)),
        order: |a, b| b.network.map(|n| n.received_bytes).cmp(&a.network.map(|n| n.received_bytes)),
    },
    Column {
        key: 'd',
        head: "READ",
        width: 9,
        text: |s| output::size(s.block_read),
        order: |a, b| b.block_read.cmp(&a.block_read),
    },
    Column {
        key: 'w',
        head: "WRITTEN",
        width: 9,
        text: |s| output::size(s.block_written),
        order: |a, b| b.block_written.cmp(&a.block_written),
    },
    Column {
        key: 'o',
        head: "PRESSURE C/M/I",
        width: 16,
        text: |s| pressure(s.pressure.as_ref()),
        order: |a, b| waits(b).total_cmp(&waits(a)),
    },
];

/// How much of the last ten seconds a container waited, for whichever thing it waited most.
fn waits(stats: &Stats) -> f64 {
    let Some(p) = stats.pressure else { return 0.0 };
    [p.cpu, p.memory, p.io].iter().map(|stall| stall.some_avg10).fold(0.0, f64::max)
}

/// The screen: what was last seen, and how it is sorted.
#[derive(Debug)]
pub struct Screen {
    all: Vec<Stats>,
    /// The column's key.
    by: char,
    reversed: bool,
    rows: TableState,
    seen: bool,
}

impl Default for Screen {
    fn default() -> Self {
        Screen { all: Vec::new(), by: 'c', reversed: false, rows: TableState::default(), seen: false }
    }
}

impl Screen {
    /// Takes new numbers.
    pub fn look(&mut self, all: Vec<Stats>) -> Then {
        self.all = all;
        self.seen = true;
        self.sort();
        Then::GoOn
    }

    /// Does what a key says.
    pub fn key(&mut self, key: KeyEvent) -> Then {
        if key.kind == KeyEventKind::Release {
            return Then::GoOn;
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c' | 'd') if control => return Then::End,
            KeyCode::Char('q' | 'Q') | KeyCode::Esc => return Then::End,
            KeyCode::Char('r') => self.reversed = !self.reversed,
            KeyCode::Down | KeyCode::Char('j') => self.rows.select_next(),
            KeyCode::Up | KeyCode::Char('k') => self.rows.select_previous(),
            KeyCode::Char(key) if COLUMNS.iter().any(|column| column.key == key) => {
                (self.by, self.reversed) = (key, false);
            }
            _ => {}
        }
        self.sort();
        Then::GoOn
    }

    fn sort(&mut self) {
        let Some(column) = COLUMNS.iter().find(|column| column.key == self.by) else { return };
        self.all.sort_by(|a, b| (column.order)(a, b).then_with(|| a.name.cmp(&b.name)));
        if self.reversed {
            self.all.reverse();
        }
    }

    /// Draws it.
    pub fn draw(&mut self, frame: &mut Frame<'_>) {
        let parts = [Constraint::Length(2), Constraint::Min(0), Constraint::Length(1)];
        let [top, middle, bottom] = Layout::vertical(parts).areas(frame.area());
        frame.render_widget(Paragraph::new(self.summary()), top);
        let head = COLUMNS.iter().map(|column| match column.key == self.by {
            true => format!("{}{}", column.head, if self.reversed { '^' } else { 'v' }),
            false => column.head.to_owned(),
        });
        let rows = self.all.iter().map(|stats| Row::new(COLUMNS.iter().map(|column| (column.text)(stats))));
        let reversed = Style::new().add_modifier(Modifier::REVERSED);
        let table = Table::new(rows, COLUMNS.iter().map(|column| Constraint::Length(column.width)))
            .header(Row::new(head).style(reversed))
            .row_highlight_style(Style::new().add_modifier(Modifier::BOLD));
        frame.render_stateful_widget(table, middle, &mut self.rows);
        let keys = COLUMNS.iter().map(|column| format!("{} {}", column.key, column.head.to_lowercase()));
        let keys = format!("sort: {}  r reverse  q quit", keys.collect::<Vec<_>>().join("  "));
        frame.render_widget(Paragraph::new(keys), bottom);
    }

    fn summary(&self) -> String {
        if !self.seen {
            return "croft top: waiting for the first numbers".to_owned();
        }
        let cpu: f64 = self.all.iter().map(|stats| stats.cpu_percent).sum();
        let memory: u64 = self.all.iter().map(|stats| stats.memory).sum();
        let pids: u64 = self.all.iter().map(|stats| stats.pids).sum();
        let running = self.all.len();
        format!("croft top: {running} running, CPU {cpu:.1}%, memory {}, {pids} pids", output::binary(memory))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn shown(screen: &mut Screen) -> String {
        let mut terminal = Terminal::new(TestBackend::new(140, 6)).unwrap();
        terminal.draw(|frame| screen.draw(frame)).unwrap();
        let cells = terminal.backend().buffer().content();
        cells
            .chunks(140)
            .map(|line| line.iter().map(|cell| cell.symbol()).collect::<String>() + "\n")
            .collect()
    }

    fn type_in(screen: &mut Screen, key: char) -> Then {
        screen.key(KeyEvent::new(KeyCode::Char(key), KeyModifiers::NONE))
    }

    #[test]
    fn keys_sort_and_leave() {
        let container = |name: &str, cpu_percent, memory| Stats {
            name: name.into(),
            cpu_percent,
            memory,
            ..Stats::default()
        };
        let mut screen = Screen::default();
        assert!(shown(&mut screen).contains("waiting"));
        screen.look(vec![container("idle", 0.0, 9 << 20), container("busy", 150.0, 1 << 20)]);
        let first = |screen: &mut Screen| shown(screen).lines().nth(3).unwrap().trim().to_owned();
        assert!(first(&mut screen).starts_with("busy"), "{}", shown(&mut screen));
        assert!(shown(&mut screen).contains("2 running, CPU 150.0%, memory 10.0 MiB"));
        type_in(&mut screen, 'm');
        assert!(first(&mut screen).starts_with("idle"), "{}", shown(&mut screen));
        type_in(&mut screen, 'r');
        assert!(first(&mut screen).starts_with("busy"));
        type_in(&mut screen, 'n');
        assert!(first(&mut screen).starts_with("busy"));
        assert_eq!(type_in(&mut screen, 'q'), Then::End);
        let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(screen.key(control_c), Then::End);
    }

    #[test]
    fn every_key_is_one_column_s() {
        let mut keys: Vec<char> = COLUMNS.iter().map(|column| column.key).chain("qrjk".chars()).collect();
        let all = keys.len();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), all);
    }
}
