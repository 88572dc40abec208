//! How songs look in a terminal: a line per song, or a line per event. Pure: texts out.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::model::{Happened, Model, Song, instant};

#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) width: usize,
    pub(super) colour: bool,
}

/// Songs shown at once; a terminal has few lines.
const SONGS_SHOWN: usize = 16;
/// How long a song of ours usually takes per phase, where the server does not say, in milliseconds.
const USUAL_LYRICS: f64 = 15_000.0;
const USUAL_MUSIC: f64 = 90_000.0;

/// Everything that is known, as lines that fit.
pub(super) fn table(model: &Model, toasts: &[String], state: &str, now: i64, look: Look) -> Vec<String> {
    let mut lines = vec![paint(look, "1", &cut(state, look.width)), String::new()];
    let mut songs: Vec<(&String, &Song)> = model.songs.iter().collect();
    songs.sort_by_key(|(id, song)| (rank(status(song)), std::cmp::Reverse(song.changed_at), id.as_str()));
    if songs.is_empty() {
        lines.push(paint(look, "2", "no songs yet: they appear here as soon as one is created"));
    }
    for (id, song) in songs.iter().take(SONGS_SHOWN) {
        lines.push(row(id, song, now, look));
        for (name, url) in links(song) {
            lines.push(link(look, &format!("         {name:<7} "), &url));
        }
        if let Some(message) = song.fields.get("error").and_then(|error| error["message"].as_str()) {
            lines.push(paint(look, "31", &cut(&format!("         {message}"), look.width)));
        }
    }
    if songs.len() > SONGS_SHOWN {
        lines.push(paint(look, "2", &format!("… and {} more", songs.len() - SONGS_SHOWN)));
    }
    if !toasts.is_empty() {
        lines.push(String::new());
        lines.extend(toasts.iter().map(|toast| paint(look, "2", &cut(toast, look.width))));
    }
    lines
}

fn row(id: &str, song: &Song, now: i64, look: Look) -> String {
    let status = status(song);
    let (elapsed, fraction) = progress(song, now);
    let bar = fraction.map_or_else(|| " ".repeat(12), |fraction| bar(fraction, 12));
    let time = elapsed.map_or_else(String::new, |millis| clock(millis / 1000));
    let room = look.width.saturating_sub(8 + 2 + 18 + 1 + 12 + 1 + 6 + 2).max(8);
    let waiting = match song.fields.get("waiting_for").and_then(Value::as_str) {
        Some(what) => format!(" (waits: {what})"),
        None => String::new(),
    };
    let title = pad(&cut(&format!("{}{waiting}", title(song)), room), room);
    let colour = match status {
        "ready" | "complete" => "32",
        "lyrics_ready" => "33",
        "failed" => "31",
        "cancelled" => "2",
        _ => "36",
    };
    let id = short(id);
    format!("{id}  {title} {} {bar} {time:>6}", paint(look, colour, &pad(status, 18)))
}

/// How long the present phase lasts, and how far it may be.
fn progress(song: &Song, now: i64) -> (Option<i64>, Option<f64>) {
    let (kind, usual) = match status(song) {
        "generating_lyrics" => ("lyrics", USUAL_LYRICS),
        "generating_music" => ("music", USUAL_MUSIC),
        "ready" | "complete" => return (None, Some(1.0)),
        _ => return (None, None),
    };
    let started = song.fields.get("progress").and_then(|progress| instant(&progress[kind]["started_at"]));
    let Some(started) = started else { return (None, Some(0.0)) };
    let elapsed = (now - started).max(0);
    #[allow(clippy::cast_precision_loss)]
    let passed = elapsed as f64;
    let fraction = match song.fields.get("eta_ms").and_then(Value::as_f64) {
        Some(left) if left > 0.0 => passed / (passed + left),
        // Nearer and nearer to the end, but never there: nobody knows.
        _ => 1.0 - (-passed / usual).exp(),
    };
    (Some(elapsed), Some(fraction.min(0.99)))
}

fn bar(fraction: f64, width: usize) -> String {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let full = ((fraction.clamp(0.0, 1.0) * width as f64).round() as usize).min(width);
    "█".repeat(full) + &"░".repeat(width - full)
}

/// What can be played, best first.
fn links(song: &Song) -> Vec<(String, String)> {
    let playable = |variant: &Value| {
        let url =
            ["asset_url", "audio_url", "stream_url"].iter().find_map(|field| variant[field].as_str())?;
        Some((format!("clip {}", variant["variant_number"]), url.to_owned()))
    };
    song.fields.get("variants").and_then(Value::as_array).into_iter().flatten().filter_map(playable).collect()
}

/// One event on one line, for logs and pipes.
pub(super) fn line(happened: &Happened, song: Option<&Song>) -> String {
    let empty = Song::default();
    let song = song.unwrap_or(&empty);
    let mut line = format!(
        "{} {} {:?} {} {}",
        time_of_day(happened.at),
        short(&happened.song),
        title(song),
        happened.kind,
        status(song)
    );
    if happened.skipped > 0 {
        let _ = write!(line, " (newest of {})", happened.skipped + 1);
    }
    // A new song is all new.
    let changed = changes(&happened.set);
    if happened.kind != "created" && !changed.is_empty() {
        let _ = write!(line, "  {changed}");
    }
    if happened.set.contains_key("variants") {
        for (name, url) in links(song) {
            let _ = write!(line, "  {name}: {url}");
        }
    }
    line
}

/// A song of a snapshot on one line.
pub(super) fn line_of(id: &str, song: &Song) -> String {
    let mut line =
        format!("{} {} {:?} is {}", time_of_day(song.changed_at), short(id), title(song), status(song));
    for (name, url) in links(song) {
        let _ = write!(line, "  {name}: {url}");
    }
    line
}

/// Short values in full, long ones by name.
fn changes(set: &Map<String, Value>) -> String {
    let noise = ["updated_at", "status", "id", "created_at"];
    let fields = set.iter().filter(|(field, _)| !noise.contains(&field.as_str()));
    let words = fields.map(|(field, value)| match value {
        Value::Array(_) | Value::Object(_) => field.clone(),
        Value::String(text) if text.chars().count() > 40 => field.clone(),
        _ => format!("{field}={value}"),
    });
    words.collect::<Vec<_>>().join(" ")
}

fn status(song: &Song) -> &str {
    song.fields.get("status").and_then(Value::as_str).unwrap_or("?")
}

fn title(song: &Song) -> &str {
    let text = |field| song.fields.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
    text("title").or_else(|| text("prompt")).unwrap_or("untitled")
}

fn rank(status: &str) -> u8 {
    match status {
        "generating_lyrics" | "generating_music" => 0,
        "pending" => 1,
        "lyrics_ready" => 2,
        "ready" => 3,
        "failed" => 4,
        _ => 5,
    }
}

/// The end of an id: the beginning of version 7 is the time, the same for songs of a day.
fn short(id: &str) -> &str {
    id.get(id.len().saturating_sub(8)..).unwrap_or(id)
}

fn clock(seconds: i64) -> String {
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

pub(super) fn time_of_day(millis: i64) -> String {
    let stamp = jiff::Timestamp::from_millisecond(millis).unwrap_or_default();
    stamp.to_zoned(jiff::tz::TimeZone::system()).strftime("%H:%M:%S").to_string()
}

/// Without control characters: a title must not move our cursor.
fn cut(text: &str, width: usize) -> String {
    let mut clean = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter });
    let mut cut: String = clean.by_ref().take(width).collect();
    if clean.next().is_some() {
        cut.pop();
        cut.push('…');
    }
    cut
}

/// An address too long for the line can still be clicked, where the terminal knows how (OSC 8).
fn link(look: Look, before: &str, url: &str) -> String {
    let shown = cut(url, look.width.saturating_sub(before.chars().count()));
    let safe = !url.chars().any(char::is_control);
    let shown = if look.colour && safe { format!("\x1b]8;;{url}\x1b\\{shown}\x1b]8;;\x1b\\") } else { shown };
    paint(look, "2", &format!("{before}{shown}"))
}

fn pad(text: &str, width: usize) -> String {
    format!("{text:<width$}")
}

fn paint(look: Look, code: &str, text: &str) -> String {
    if look.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const PLAIN: Look = Look { width: 100, colour: false };

    fn song(fields: &Value) -> Song {
        Song { seq: 1, fields: fields.as_object().unwrap().clone(), changed_at: 0 }
    }

    #[test]
    fn a_song_at_work_shows_how_far_it_may_be() {
        let at_work = song(&json!({"title": "Us", "status": "generating_music", "eta_ms": 30_000,
            "progress": {"music": {"started_at": "1970-01-01T00:00:00.000Z"}}}));
        let row = row("0198f000-0000-7000-8000-0000abcd1234", &at_work, 30_000, PLAIN);
        assert!(row.starts_with("abcd1234  Us "), "{row}");
        assert!(row.contains("██████░░░░░░") && row.ends_with("0:30"), "{row}");
        assert_eq!(row.chars().count(), 99, "the last column stays free: some terminals wrap there");
    }

    #[test]
    fn a_playable_song_shows_its_best_link() {
        let mut model = Model::default();
        let ready = json!({"title": "Us\u{1b}[2J", "status": "ready", "variants": [
            {"variant_number": 1, "audio_url": "https://a/1.mp3", "stream_url": "https://s/1"},
            {"variant_number": 2, "audio_url": null, "stream_url": null}]});
        model.songs.insert("0198f".into(), song(&ready));
        let lines = table(&model, &[], "live", 0, PLAIN).join("\n");
        assert!(lines.contains("clip 1  https://a/1.mp3") && !lines.contains("clip 2"), "{lines}");
        assert!(!lines.contains('\u{1b}'), "a title must not command the terminal");
    }

    #[test]
    fn an_event_is_one_line() {
        let set = json!({"status": "ready", "title": "Us", "variants": [
            {"variant_number": 1, "stream_url": "https://s/1"}], "eta_ms": null});
        let happened = Happened {
            song: "0198f-12345678".into(),
            kind: "ready".into(),
            at: 0,
            skipped: 2,
            set: set.as_object().unwrap().clone(),
        };
        let line = line(&happened, Some(&song(&set)));
        assert!(line.contains("12345678 \"Us\" ready ready (newest of 3)"), "{line}");
        assert!(line.ends_with("clip 1: https://s/1") && !line.contains('\n'), "{line}");
    }
}
