//! The one place that writes to the terminal. Colours only where people look, and not where
//! `NO_COLOR` is set (no-color.org).

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

#[derive(Clone, Copy, Debug)]
pub enum Style {
    Plain,
    Bold,
    Dim,
    Red,
    Green,
    Yellow,
    Cyan,
}

impl Style {
    fn code(self) -> &'static str {
        match self {
            Style::Plain => "",
            Style::Bold => "\x1b[1m",
            Style::Dim => "\x1b[2m",
            Style::Red => "\x1b[31m",
            Style::Green => "\x1b[32m",
            Style::Yellow => "\x1b[33m",
            Style::Cyan => "\x1b[36m",
        }
    }
}

/// Writes a line to stdout: what was asked for, and nothing else.
///
/// # Errors
/// When the reader has gone (`songflight config | head`): stop, there is nothing to report.
pub fn line(style: Style, text: impl Display) -> io::Result<()> {
    let out = io::stdout();
    let painted = paint(style, text, out.is_terminal());
    writeln!(out.lock(), "{painted}")
}

/// Writes a line to stderr: what goes on. If nobody reads it, nothing is lost.
pub fn note(style: Style, text: impl Display) {
    let err = io::stderr();
    let painted = paint(style, text, err.is_terminal());
    let _ = writeln!(err.lock(), "{painted}");
}

/// Whether a person sees stdout.
pub fn is_watched() -> bool {
    io::stdout().is_terminal()
}

/// Columns and lines of the terminal that stdout is: as it says itself, else as the shell says, else as most are.
pub fn size() -> (usize, usize) {
    let own = rustix::termios::tcgetwinsize(io::stdout()).ok();
    let own = own.map_or((0, 0), |size| (usize::from(size.ws_col), usize::from(size.ws_row)));
    let of = |own: usize, name: &str, usual: usize| {
        let said = || std::env::var(name).ok()?.parse().ok().filter(|size| *size > 0);
        Some(own).filter(|own| *own > 0).or_else(said).unwrap_or(usual)
    };
    (of(own.0, "COLUMNS", 100), of(own.1, "LINES", 24))
}

fn paint(style: Style, text: impl Display, terminal: bool) -> String {
    let plain = !terminal || std::env::var_os("NO_COLOR").is_some_and(|set| !set.is_empty());
    match style {
        Style::Plain => text.to_string(),
        _ if plain => text.to_string(),
        _ => format!("{}{text}\x1b[0m", style.code()),
    }
}
