//! What differs from provider to provider: clips told of one by one, one long call, and who comes next.

use super::*;
use crate::song::event::EventKind;
use crate::song::phase::OwnRules;
use crate::song::wish::Alternative;

fn an_alternative(model: Option<&str>) -> Alternative {
    let calls = Calls { lyrics: 1, music: 1 };
    Alternative { provider: "minimax".into(), calls, model: model.map(String::from) }
}

fn done(id: &str) -> News {
    News::Clips(Stage::First, vec![Clip { finished: true, ..clip(id) }])
}

#[test]
fn a_call_ends_when_each_of_its_clips_was_told_of() {
    let key = a_song().key(0, 0);
    let told =
        Event::Submitted { call: key, provider_task: "p".into(), clip_ids: vec!["a".into(), "b".into()] };
    let song = a_song().submitting(0, 0).then(told).heard(0, 0, done("b"));
    assert_eq!(song.status(), Status::GeneratingMusic);
    let second = &song.song.variants[1];
    assert_eq!((second.clip_id.as_deref(), second.playable()), (Some("b"), true));
    let song = song.heard(0, 0, done("b"));
    assert_eq!(song.status(), Status::GeneratingMusic, "the same clip twice is one clip");
    let song = song.heard(0, 0, done("a"));
    assert_eq!(song.status(), Status::Ready);
}

#[test]
fn a_song_that_goes_on_elsewhere_is_made_with_a_model_of_the_other() {
    let model_after = |asked: &str, other: Option<&str>| {
        let mut wish = Wish { alternatives: vec![an_alternative(other)], ..a_wish(Mode::Music) };
        wish.options.model = Some(asked.into());
        let song = story(wish).ordered(0, 0).heard(0, 0, gave_up(Class::InsufficientProviderCredits));
        assert_eq!(song.song.wish.provider, "minimax");
        song.song.order(song.key(0, 1)).options.model
    };
    assert_eq!(model_after("V5", Some("music-2.6")).as_deref(), Some("music-2.6"));
    assert_eq!(model_after("auto", None).as_deref(), Some("auto"), "what was asked for stays");
}

#[test]
fn who_cannot_take_the_words_of_a_retry_does_not_take_over() {
    let other = |name: &str| Alternative { provider: name.into(), ..an_alternative(None) };
    let wish = Wish { alternatives: vec![other("minimax"), other("musicgpt")], ..a_wish(Mode::Music) };
    let failed = story(wish).ordered(0, 0).heard(0, 0, gave_up(Class::Moderation));
    let again = Event::Retried {
        task: task(2),
        prompt: Some("other words".into()),
        lyrics: None,
        unable: vec!["minimax".into()],
    };
    let song = failed.then(again).ordered(0, 0).heard(0, 0, gave_up(Class::InsufficientProviderCredits));
    assert_eq!(song.song.wish.provider, "musicgpt");
}

#[test]
fn a_song_goes_on_at_whoever_is_the_best_by_then() {
    let other = |name: &str| Alternative { provider: name.into(), ..an_alternative(None) };
    let wish = Wish { alternatives: vec![other("mureka"), other("minimax")], ..a_wish(Mode::Music) };
    let song = story(wish).ordered(0, 0);
    let told = |news| Event::News { call: song.key(0, 0), provider_task: None, news };
    let at = |event: &Event, ranked: &'static [&'static str]| {
        let asked = std::cell::Cell::new(0);
        let ranking = || {
            asked.set(asked.get() + 1);
            ranked.to_vec()
        };
        let next = step_ranked(&song.song, event, song.now, &rules(), ranking);
        (next.song.wish.provider.clone(), next.song.wish.alternatives.len(), asked.get())
    };
    let gone = told(gave_up(Class::InsufficientProviderCredits));
    assert_eq!(at(&gone, &["minimax", "mureka"]), ("minimax".to_owned(), 1, 1));
    assert_eq!(
        at(&gone, &[]),
        ("mureka".to_owned(), 1, 1),
        "who is not there any more is no reason to stumble"
    );
    assert_eq!(at(&told(News::Working), &["minimax"]).2, 0, "nobody is asked where nothing changes hands");
}

#[test]
fn a_song_has_the_deadline_and_the_timetable_of_its_provider() {
    let poll = PollRules { initial: minutes(3), max: minutes(3), multiplier: 1.0 };
    let own = OwnRules { deadline: minutes(20), poll };
    let rules = Rules { own: [("minimax".to_owned(), own)].into(), ..rules() };
    let song = story(Wish { alternatives: vec![an_alternative(None)], ..a_wish(Mode::Music) });
    // Its first provider has none of its own, its second has.
    let first = song.clone().ordered(0, 0);
    let due = |song: &Story| due::all(&song.song, |_| song.now, &rules);
    assert!(due(&first).contains(&(NOON + minutes(10), Due::Wake)));
    let second = song.ordered(0, 0).heard(0, 0, gave_up(Class::InsufficientProviderCredits)).ordered(0, 1);
    assert_eq!(second.song.head.provider, "minimax");
    let all = due(&second);
    assert!(matches!(all[0], (at, Due::Poll(_)) if at > NOON + minutes(2)), "{all:?}");
    assert_eq!(all[1..], [(NOON + minutes(20), Due::Wake)]);

    let at = |song: &Story, now: Time| step(&song.song, &Event::Wake, now, &rules).song.status();
    assert_eq!(at(&second, NOON + minutes(19)), Status::GeneratingMusic);
    assert_eq!(at(&second, NOON + minutes(20)), Status::Failed);
    assert_eq!(at(&first, NOON + minutes(10)), Status::GeneratingMusic, "it goes on at the other");
    assert_eq!(rules.longest_deadline(), minutes(20));
}

#[test]
fn a_clip_that_failed_alone_does_not_fail_the_others() {
    let failed = Clip { clip_id: Some("a".into()), failed: true, finished: true, ..Clip::default() };
    let song = a_song().ordered(0, 0).heard(0, 0, done("b"));
    let song = song.heard(0, 0, News::Clips(Stage::First, vec![failed]));
    assert_eq!(song.status(), Status::Ready);
    let playable = song.song.variants.iter().filter(|variant| variant.playable()).count();
    assert_eq!(playable, 1);
}

#[test]
fn one_long_call_shows_the_song_at_work_from_its_start() {
    let key = a_song().key(0, 0);
    let mut event = submitting(key, NOON);
    if let Event::Submitting { synchronous, .. } = &mut event {
        *synchronous = true;
    }
    let song = a_song().then(event);
    assert_eq!((song.status(), song.last.kind), (Status::GeneratingMusic, Some(EventKind::PhaseStarted)));
    let song = song.heard(0, 0, finished());
    assert_eq!(song.status(), Status::Ready);
}

#[test]
fn the_first_clip_of_two_calls_is_announced_as_such() {
    let song = of_two_calls(Mode::Music).ordered(0, 0).ordered(1, 0);
    assert_eq!(song.last.kind, Some(EventKind::Updated), "it had started already");
    let song = song.heard(0, 0, clips(Stage::Complete, &["a"]));
    assert_eq!((song.status(), song.last.kind), (Status::GeneratingMusic, Some(EventKind::ClipReady)));
}

#[test]
fn a_song_that_was_left_to_us_goes_to_the_next_provider_when_one_fails_for_its_own_reasons() {
    let song = with_another(Mode::Music).submitting(0, 0).refused(0, 0, Class::InsufficientProviderCredits);
    assert_eq!(song.last.kind, Some(EventKind::ProviderChanged));
    assert_eq!((song.song.head.provider.as_str(), song.run().calls.len()), ("minimax", 2));
    let passed = &song.song.music_progress.as_ref().expect("it is under way").passed_over;
    assert_eq!((passed[0].provider.as_str(), passed[0].class), ("suno", Class::InsufficientProviderCredits));
    assert_eq!(song.settled(), None);
    // Numbers that were never used: a late callback of the first provider is not taken for the second's.
    assert_eq!(song.due(), Some((song.now, Due::Submit(song.key(0, 1)))));
    song.unmoved_by(Event::News { call: song.key(0, 0), provider_task: None, news: finished() });
    let song = song.refused_after_submitting();
    assert_eq!(song.status(), Status::Failed, "there is no third");
}

#[test]
fn who_failed_a_song_may_take_over_again_when_its_owner_tries_again() {
    let fails = |song: Story, attempt: u16| {
        song.ordered(0, attempt).heard(0, attempt, gave_up(Class::InsufficientProviderCredits))
    };
    let other = an_alternative(Some("music-2.6"));
    let wish = Wish { alternatives: vec![other], ..a_wish(Mode::Music) };
    let song =
        story(Wish { options: MusicOptions { model: Some("V5".into()), ..wish.options.clone() }, ..wish });
    let song = fails(fails(song, 0), 1);
    assert_eq!((song.status(), song.song.wish.provider.as_str()), (Status::Failed, "minimax"));
    let song = fails(song.retried(2), 0);
    assert_eq!((song.status(), song.song.wish.provider.as_str()), (Status::GeneratingMusic, "suno"));
    assert_eq!(song.song.order(song.key(0, 1)).options.model.as_deref(), Some("V5"));
    assert_eq!(fails(song, 1).status(), Status::Failed, "each has had its turn");
}

#[test]
fn a_call_is_paid_for_to_whoever_took_it_also_when_its_failure_leads_to_another_provider() {
    let song = with_another(Mode::Music).submitting(0, 0);
    let song = song.heard(0, 0, gave_up(Class::InsufficientProviderCredits));
    assert_eq!(song.song.head.provider, "minimax");
    let took = |write: &Write| matches!(write, Write::Ref { provider, .. } if provider == "suno");
    assert!(song.last.writes.iter().any(took), "{:?}", song.last.writes);
}

#[test]
fn what_the_words_are_to_blame_for_fails_at_the_first_provider() {
    for class in [Class::Moderation, Class::InvalidInput] {
        let song = with_another(Mode::Music).submitting(0, 0).refused(0, 0, class);
        assert_eq!(song.status(), Status::Failed);
    }
}

#[test]
fn a_provider_that_is_down_is_passed_over_only_by_songs_that_were_left_to_us() {
    let song = with_another(Mode::Music);
    let down = |song: &Story, attempt: u16, open: &[&str]| {
        let open = open.iter().map(|name| (*name).to_owned()).collect();
        let (call, by) = (song.key(0, attempt), Waiting::ProviderDown);
        Event::Limited { call, by, queue_position: Some(3), open }
    };
    let nobody = song.clone().then(down(&song, 0, &["musicgpt"]));
    assert_eq!(nobody.song.head.provider, "suno", "the other one is down as well");
    let song = song.clone().then(down(&song, 0, &["minimax"]));
    assert_eq!(song.song.head.provider, "minimax");
    // Who was down only for a while may have it back, and once.
    let song = song.clone().then(down(&song, 1, &["suno"]));
    assert_eq!((song.song.head.provider.as_str(), song.run().calls.len()), ("suno", 1));
    let song = song.clone().then(down(&song, 2, &["minimax"]));
    let song = song.clone().then(down(&song, 3, &["suno"]));
    assert_eq!(song.song.head.provider, "minimax");

    let song = a_song().then(limited(a_song().key(0, 0), Waiting::ProviderDown));
    assert_eq!((song.status(), song.run().waiting), (Status::Pending, Some(Waiting::ProviderDown)));
    assert_eq!(song.run().queue_position, Some(3));
}

#[test]
fn waiting_for_ones_own_songs_has_no_end_of_patience() {
    let song = a_song().then(limited(a_song().key(0, 0), Waiting::Concurrency));
    assert_eq!(song.run().limited_since, None);
}

impl Story {
    fn refused_after_submitting(self) -> Self {
        let song = self.submitting(0, 1).refused(0, 1, Class::InsufficientProviderCredits);
        song.submitting(1, 1).refused(1, 1, Class::InsufficientProviderCredits)
    }
}
