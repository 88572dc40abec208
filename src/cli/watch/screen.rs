//! How songs look in a terminal: a line per song, or a line per event. Pure: texts out.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::model::{Happened, Model, Song, instant};

#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) width: usize,
    /// Lines that the terminal has.
    pub(super) height: usize,
    pub(super) colour: bool,
}

/// Of the lines there are, events have at most one in so many.
const EVENTS_SHARE: usize = 4;
/// How long a song of ours usually takes per phase, where the server does not say, in milliseconds.
const USUAL_LYRICS: f64 = 15_000.0;
const USUAL_MUSIC: f64 = 90_000.0;

/// What is of most interest, as lines that fit: one fewer than the terminal has, because the cursor stands below them.
pub(super) fn table(model: &Model, toasts: &[String], state: &str, now: i64, look: Look) -> Vec<String> {
    let most = look.height.saturating_sub(1);
    let mut lines = vec![paint(look, "1", &cut(state, look.width)), String::new()];
    let newest = toasts.len().saturating_sub((most / EVENTS_SHARE).saturating_sub(1));
    let toasts = &toasts[newest..];
    let events = if toasts.is_empty() { 0 } else { 1 + toasts.len() };
    lines.extend(songs(model, now, look, most.saturating_sub(lines.len() + events)));
    if !toasts.is_empty() {
        lines.push(String::new());
        lines.extend(toasts.iter().map(|toast| paint(look, "2", &cut(toast, look.width))));
    }
    lines.truncate(most);
    lines
}

/// As many songs as there is room for, those first that somebody waits for, and how many more there are.
fn songs(model: &Model, now: i64, look: Look, room: usize) -> Vec<String> {
    let mut songs: Vec<(&String, &Song)> = model.songs.iter().collect();
    songs.sort_by_key(|(id, song)| (rank(status(song)), std::cmp::Reverse(song.changed_at), id.as_str()));
    if songs.is_empty() {
        return vec![paint(look, "2", "no songs yet: they appear here as soon as one is created")];
    }
    let mut lines = Vec::new();
    for (shown, (id, song)) in songs.iter().enumerate() {
        let more = songs.len() - shown;
        // Unless it is the last one, the line that says so needs a place, too.
        let room = room.saturating_sub(lines.len() + usize::from(more > 1));
        if room == 0 {
            lines.push(paint(look, "2", &format!("… and {more} more")));
            break;
        }
        lines.push(row(id, song, now, look));
        let details = details(song, look);
        if details.len() < room {
            lines.extend(details);
        }
    }
    lines
}

/// What can be played of a song, or why it cannot.
fn details(song: &Song, look: Look) -> Vec<String> {
    let links = links(song).into_iter().map(|(name, url)| link(look, &format!("         {name:<7} "), &url));
    let message = song.fields.get("error").and_then(|error| error["message"].as_str());
    let error = message.map(|message| paint(look, "31", &cut(&format!("         {message}"), look.width)));
    links.chain(error).collect()
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
    let passed = elapsed as f64;
    let fraction = match song.fields.get("eta_ms").and_then(Value::as_f64) {
        Some(left) if left > 0.0 => passed / (passed + left),
        // Nearer and nearer to the end, but never there: nobody knows.
        _ => 1.0 - (-passed / usual).exp(),
    };
    (Some(elapsed), Some(fraction.min(0.99)))
}

fn bar(fraction: f64, width: usize) -> String {
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
    let what = what(happened, song);
    let (at, id) = (time_of_day(happened.at), short(&happened.song));
    let mut line = format!("{at} {id} {:?} {what}", title(song));
    for word in circumstances(&happened.set) {
        let _ = write!(line, ", {word}");
    }
    if happened.skipped > 0 {
        let _ = write!(line, " (newest of {})", happened.skipped + 1);
    }
    if happened.set.contains_key("variants") {
        for (name, url) in links(song) {
            let _ = write!(line, "  {name}: {url}");
        }
    }
    line
}

/// What happened, in words; a kind that came after this program was made, by its name.
fn what(happened: &Happened, song: &Song) -> String {
    let of_song = |field| song.fields.get(field).and_then(Value::as_str);
    let words = match happened.kind.as_str() {
        "created" => "is ordered",
        "waiting" => "waits",
        "phase_started" if status(song) == "generating_lyrics" => "gets its lyrics",
        "phase_started" => "gets its music",
        "lyrics_ready" => "waits for its lyrics to be chosen",
        "lyrics_chosen" => "has its lyrics chosen",
        "clip_ready" => "can be listened to",
        "retry_scheduled" => "is tried again",
        "provider_changed" => {
            return format!("goes to {}", of_song("provider").unwrap_or("another provider"));
        }
        "task_started" => "gets something made beside it",
        "task_completed" => "has what was made beside it",
        "task_failed" => "goes without what failed beside it",
        "ready" => "is ready",
        "complete" => "is complete",
        "failed" => "failed",
        "cancelled" => "is cancelled",
        "gone" => "is gone",
        "updated" => return format!("has changed: {}", names(&happened.set)),
        other => return other.replace('_', " "),
    };
    words.to_owned()
}

/// How long, after whom, why: what a person asks next.
fn circumstances(set: &Map<String, Value>) -> Vec<String> {
    let number = |field| set.get(field).and_then(Value::as_i64);
    let waits =
        set.get("waiting_for").and_then(Value::as_str).map(|what| format!("for {}", what.replace('_', " ")));
    let place = number("queue_position").map(|place| format!("place {place}"));
    let left = number("eta_ms").map(|left| format!("about {} left", clock(left / 1000)));
    let why = set.get("error").and_then(|error| error["message"].as_str()).map(str::to_owned);
    [waits, place, left, why].into_iter().flatten().collect()
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

/// What changed, by name.
fn names(set: &Map<String, Value>) -> String {
    let noise =
        ["id", "updated_at", "created_at", "progress", "retry", "eta_ms", "queue_position", "waiting_for"];
    let fields =
        set.keys().filter(|field| !noise.contains(&field.as_str())).map(|field| field.replace('_', " "));
    let fields = fields.collect::<Vec<_>>().join(", ");
    if fields.is_empty() { "how far it is".to_owned() } else { fields }
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

    const PLAIN: Look = Look { width: 100, height: 40, colour: false };

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
    fn nothing_is_drawn_beyond_the_terminal_and_what_is_left_out_is_counted() {
        let mut model = Model::default();
        for n in 0..200 {
            let status = if n < 2 { "generating_music" } else { "ready" };
            let fields = json!({"title": format!("song {n}"), "status": status, "variants": [
                {"variant_number": 1, "audio_url": "https://a/1"}, {"variant_number": 2, "audio_url": "https://a/2"}]});
            model.songs.insert(format!("0198f000-{n:08}"), Song { changed_at: n, ..song(&fields) });
        }
        let toasts: Vec<String> = (0..5).map(|n| format!("event {n}")).collect();
        for height in [3, 4, 5, 8, 14, 24, 60, 700] {
            let lines = table(&model, &toasts, "live", 0, Look { height, ..PLAIN });
            assert!(lines.len() < height, "{} lines of {height}", lines.len());
            assert_eq!(lines[0], "live");
            let more = lines
                .iter()
                .find_map(|line| line.strip_prefix("… and ")?.strip_suffix(" more")?.parse().ok());
            let shown = lines.iter().filter(|line| line.contains("song ")).count();
            if height > 4 {
                assert_eq!(shown + more.unwrap_or(0), 200, "{height}: {lines:?}");
            }
            if height >= 14 {
                assert!(lines[2].contains("song 1 ") && lines.last().is_some_and(|last| last == "event 4"));
            }
        }
        model.songs.retain(|id, _| id.as_str() <= "0198f000-00000003");
        let lines = table(&model, &[], "live", 0, Look { height: 15, ..PLAIN });
        assert_eq!(lines.len(), 14, "four songs of three lines fit just so: {lines:?}");
    }

    #[test]
    fn an_event_is_one_line_of_words() {
        let set = json!({"status": "ready", "title": "Us", "progress": {}, "variants": [
            {"variant_number": 1, "stream_url": "https://s/1"}], "eta_ms": null});
        let of = |kind: &str, skipped: i64, set: &Value| Happened {
            song: "0198f-12345678".into(),
            kind: kind.into(),
            at: 0,
            skipped,
            set: set.as_object().unwrap().clone(),
        };
        let ready = line(&of("ready", 2, &set), Some(&song(&set)));
        assert!(ready.ends_with("12345678 \"Us\" is ready (newest of 3)  clip 1: https://s/1"), "{ready}");
        let words = |kind: &str, set: &Value| line(&of(kind, 0, set), Some(&song(&json!({"title": "Us"}))));
        let waits = json!({"waiting_for": "provider_limit", "queue_position": 3, "eta_ms": 90_000});
        let waits = words("waiting", &waits);
        assert!(waits.ends_with("\"Us\" waits, for provider limit, place 3, about 1:30 left"), "{waits}");
        let failed = words("failed", &json!({"error": {"message": "The words were refused."}}));
        assert!(failed.ends_with("\"Us\" failed, The words were refused."), "{failed}");
        let changed = words("updated", &json!({"title": "Us", "updated_at": "x", "progress": {}}));
        assert!(changed.ends_with("\"Us\" has changed: title"), "{changed}");
        assert!(words("sung_by_a_choir", &json!({})).ends_with("\"Us\" sung by a choir"));
    }
}
