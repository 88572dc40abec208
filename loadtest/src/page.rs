//! The report as one HTML file that needs nothing else: figures, plots, what was checked.
//!
//! Not here: how a plot is drawn (`plot.rs`).

mod plot;

use std::fmt::Write;

use super::report::time;
use super::result::{Check, End, Outcome, Sample};
use plot::{Line, Plot, Scale};

const STYLE: &str = include_str!("page/style.css");

pub fn page(outcome: &Outcome) -> String {
    let mut html = String::with_capacity(256 << 10);
    let title = escaped(&outcome.scenario);
    let _ = write!(
        html,
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>\
         <title>{title} · Songflight under load</title><style>{STYLE}</style><main>"
    );
    head(&mut html, outcome);
    cards(&mut html, outcome);
    plots(&mut html, outcome);
    ends(&mut html, &outcome.ends);
    checks(&mut html, &outcome.checks, &outcome.faults);
    tables(&mut html, outcome);
    let source = escaped(&outcome.source);
    let _ =
        write!(html, "<details><summary>The scenario</summary><pre>{source}</pre></details></main></html>");
    html
}

fn head(html: &mut String, outcome: &Outcome) {
    let right = outcome.over && outcome.checks.iter().all(|check| check.right);
    let (class, verdict) =
        if right { ("good", "everything was right") } else { ("bad", "something was wrong") };
    let machine = &outcome.machine;
    let _ = write!(
        html,
        "<header><div><p class=brand>Songflight under load</p><h1>{}</h1><p>{}</p></div>\
         <p class='verdict {class}'>{verdict}</p></header>\
         <p class=quiet>{} · {} cores of {} · {} GiB · {} build</p>",
        escaped(&outcome.scenario),
        escaped(&outcome.about),
        escaped(&outcome.at),
        machine.cores,
        escaped(&machine.cpu),
        machine.memory_mib.div_ceil(1024),
        escaped(&machine.build),
    );
}

fn cards(html: &mut String, outcome: &Outcome) {
    let ready: u64 = outcome.ends.iter().filter(|end| end.is_ready()).map(|end| end.count).sum();
    let created = outcome.counts.get("songs created").copied().unwrap_or_default();
    let most = outcome.samples.iter().map(|sample| sample.in_flight).max().unwrap_or_default();
    let quantile =
        |name: &str| outcome.times.get(name).map_or((0.0, 0.0), |times| (times.p50_ms, times.p99_ms));
    let mut cards = vec![
        (
            number(created),
            "songs made".to_owned(),
            format!("{} ready, in {}", number(ready), time(outcome.took_s * 1000.0)),
        ),
        (number(most), "under way at once".to_owned(), "at most".to_owned()),
    ];
    for (name, what) in [("callback to socket", "from callback to screen"), ("create", "to take an order")] {
        let (p50, p99) = quantile(name);
        if p50 > 0.0 {
            cards.push((time(p50), what.to_owned(), format!("half of them; 99 in 100 within {}", time(p99))));
        }
    }
    if let Some(server) = outcome.usage.get("server") {
        let cpu = outcome.per_song.get("CPU ms of the server").copied().unwrap_or_default();
        let peak = server.peak_mib.unwrap_or(server.memory_mib);
        cards.push((
            format!("{peak:.0} MiB"),
            "the server at its peak".to_owned(),
            format!("{cpu:.2} ms of CPU for each song"),
        ));
    }
    html.push_str("<section class=cards>");
    for (value, name, more) in cards {
        let _ = write!(html, "<div><b>{value}</b><span>{name}</span><small>{more}</small></div>");
    }
    html.push_str("</section>");
}

fn plots(html: &mut String, outcome: &Outcome) {
    html.push_str("<section class=plots>");
    let samples = &outcome.samples;
    let over_time =
        |of: fn(&Sample) -> f64| samples.iter().map(|one| (one.at_s, of(one))).collect::<Vec<_>>();
    let plot = |title: &str, unit: &str, lines: Vec<Line>| Plot {
        title: title.to_owned(),
        unit: unit.to_owned(),
        across: Scale::Seconds,
        up: Scale::Even,
        marks: outcome.marks.clone(),
        lines,
    };
    let songs = vec![
        Line::new("under way", 0, over_time(|one| one.in_flight as f64)).filled(),
        Line::new("made", 1, over_time(|one| one.created as f64)),
        Line::new("ready", 2, over_time(|one| one.ready as f64)),
        Line::new("failed", 3, over_time(|one| one.failed as f64)),
    ];
    html.push_str(&plot("Songs", "songs", songs).svg());
    let times = outcome.times.iter().enumerate().filter(|(_, (_, times))| times.count > 1);
    let lines = times.map(|(index, (name, times))| {
        let curve = times.curve.iter().map(|(share, ms)| (-(1.0 - share).log10(), *ms));
        Line::new(name, index, curve.collect())
    });
    html.push_str(
        &Plot {
            across: Scale::Nines,
            up: Scale::Powers,
            marks: Vec::new(),
            ..plot("How long things took", "ms", lines.collect())
        }
        .svg(),
    );
    let cpu = vec![
        Line::new("server", 0, over_time(|one| one.server_cpu)),
        Line::new("Postgres", 1, over_time(|one| one.postgres_cpu)),
        Line::new("load and provider", 4, over_time(|one| one.here_cpu)),
    ];
    html.push_str(&plot("CPU", "cores", cpu).svg());
    let memory = vec![
        Line::new("server", 0, over_time(|one| one.server_mib)),
        Line::new("Postgres", 1, over_time(|one| one.postgres_mib)),
    ];
    html.push_str(&plot("Memory", "MiB", memory).svg());
    let events = samples.windows(2).map(|two| {
        let passed = (two[1].at_s - two[0].at_s).max(0.001);
        (two[1].at_s, two[1].events.saturating_sub(two[0].events) as f64 / passed)
    });
    html.push_str(
        &plot("Events on sockets", "a second", vec![Line::new("events", 2, events.collect()).filled()]).svg(),
    );
    let live = vec![Line::new("connected and up to date", 0, over_time(|one| one.live as f64)).filled()];
    html.push_str(&plot("Sockets", "sockets", live).svg());
    html.push_str("</section>");
}

fn ends(html: &mut String, ends: &[End]) {
    html.push_str(
        "<h2>How every song ended</h2><table><tr><th>wished for<th>mode<th>made by<th>ended as<th>because of<th class=n>songs",
    );
    let all: u64 = ends.iter().map(|end| end.count).sum();
    for end in ends {
        let class = match end.ended_as.as_str() {
            "ready" | "complete" => "good",
            "failed" | "cancelled" => "meh",
            _ => "bad",
        };
        let share = end.count as f64 * 100.0 / all.max(1) as f64;
        let cells =
            [&end.wished, &end.mode, &end.provider].map(|text| format!("<td>{}", escaped(text))).concat();
        let _ = write!(
            html,
            "<tr>{cells}<td><i class={class}></i>{}<td>{}<td class=n style='--share:{share:.1}%'>{}",
            escaped(&end.ended_as),
            escaped(&end.class),
            number(end.count)
        );
    }
    html.push_str("</table>");
}

fn checks(html: &mut String, checks: &[Check], faults: &[String]) {
    html.push_str("<h2>What was checked</h2><ul class=checks>");
    for check in checks {
        let class = if check.right { "good" } else { "bad" };
        let (what, detail) = (escaped(&check.what), escaped(&check.detail));
        let _ = write!(html, "<li class={class}><b>{what}</b><small>{detail}</small>");
    }
    html.push_str("</ul>");
    if !faults.is_empty() {
        let _ = write!(html, "<details open><summary>{} faults</summary><pre>", faults.len());
        for fault in faults.iter().take(200) {
            let _ = writeln!(html, "{}", escaped(&fault.chars().take(600).collect::<String>()));
        }
        html.push_str("</pre></details>");
    }
}

fn tables(html: &mut String, outcome: &Outcome) {
    html.push_str("<h2>Figures</h2><table class=wide><tr><th>how long<th class=n>count<th class=n>p50<th class=n>p90<th class=n>p99<th class=n>p99.9<th class=n>most");
    for (name, times) in &outcome.times {
        let _ = write!(html, "<tr><td>{}<td class=n>{}", escaped(name), number(times.count));
        for ms in [times.p50_ms, times.p90_ms, times.p99_ms, times.p999_ms, times.max_ms] {
            let _ = write!(html, "<td class=n>{}", time(ms));
        }
    }
    html.push_str("</table><div class=columns><table><tr><th>used<th class=n>CPU<th class=n>at start<th class=n>gathered<th class=n>at end<th class=n>peak");
    for (name, used) in &outcome.usage {
        let peak = used.peak_mib.map_or_else(|| "–".to_owned(), |mib| format!("{mib:.0} MiB"));
        let _ = write!(
            html,
            "<tr><td>{}<td class=n>{:.1} s<td class=n>{:.0} MiB<td class=n>{:.0} MiB<td class=n>{:.0} MiB<td class=n>{peak}",
            escaped(name),
            used.cpu_s,
            used.memory_at_start_mib,
            used.memory_gathered_mib,
            used.memory_mib
        );
    }
    html.push_str("</table><table><tr><th>for each song<th class=n>");
    for (name, value) in &outcome.per_song {
        let _ = write!(html, "<tr><td>{}<td class=n>{value:.3}", escaped(name));
    }
    html.push_str("</table><table><tr><th>counted<th class=n>");
    for (name, count) in outcome.counts.iter().filter(|(_, count)| **count > 0) {
        let _ = write!(html, "<tr><td>{}<td class=n>{}", escaped(name), number(*count));
    }
    html.push_str("</table>");
    if !outcome.slowest.is_empty() {
        html.push_str("<table><tr><th>slowest from callback to socket<th class=n>");
        for (ms, what) in &outcome.slowest {
            let _ = write!(html, "<tr><td>{}<td class=n>{}", escaped(what), time(*ms));
        }
        html.push_str("</table>");
    }
    if !outcome.cuts.is_empty() {
        html.push_str("<table><tr><th>sockets that were lost<th class=n>");
        for (how, count) in &outcome.cuts {
            let _ = write!(html, "<tr><td>{}<td class=n>{}", escaped(how), number(*count));
        }
        html.push_str("</table>");
    }
    html.push_str("</div>");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

/// With a thin space between thousands.
fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut spaced = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            spaced.push('\u{202f}');
        }
        spaced.push(digit);
    }
    spaced
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_cannot_become_part_of_the_page() {
        assert_eq!(escaped("<b>'\"&"), "&lt;b&gt;&#39;&quot;&amp;");
    }

    #[test]
    fn thousands_stand_apart() {
        assert_eq!(
            [number(7), number(1000), number(1_234_567)],
            ["7", "1\u{202f}000", "1\u{202f}234\u{202f}567"]
        );
    }

    #[test]
    fn the_page_needs_nothing_else_and_shows_what_was_found() {
        let outcome: Outcome = serde_json::from_value(serde_json::json!({
            "scenario": "<script>", "about": "a", "at": "b", "source": "c", "took_s": 1.0, "over": true,
            "machine": {"cores": 2, "cpu": "d", "memory_mib": 1024, "build": "debug"}, "counts": {"songs created": 2000},
            "ends": [{"wished": "auto", "mode": "music", "provider": "suno", "ended_as": "ready", "class": "–", "count": 1}],
            "times": {}, "usage": {}, "per_song": {}, "cuts": {}, "faults": ["one & only"],
            "checks": [{"what": "e", "right": false, "detail": "f"}],
            "marks": [{"what": "SIGKILL", "from_s": 0.5, "to_s": 0.7}], "samples": [{
                "at_s": 1.0, "created": 1, "refused": 0, "ready": 1, "failed": 0, "in_flight": 0, "events": 3, "live": 1,
                "server_cpu": 0.1, "postgres_cpu": 0.1, "here_cpu": 0.1, "server_mib": 1.0, "postgres_mib": 1.0}],
        }))
        .expect("an outcome");
        let page = page(&outcome);
        for foreign in ["<script", "src=", "href=", "url(", "@import", "NaN"] {
            assert!(!page.contains(foreign), "{foreign}");
        }
        for shown in ["something was wrong", "one &amp; only", "SIGKILL", "2\u{202f}000"] {
            assert!(page.contains(shown), "{shown}");
        }
    }
}
