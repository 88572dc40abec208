//! Writes song lyrics around the words of a prompt: two verses, a chorus, a bridge, all in rhyme.
//!
//! The lines rhyme among themselves and take the prompt's words in their middle, so that any word, of
//! any language, sits well enough.

use super::chance::Chance;
use super::script::without_words;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Words {
    pub(super) title: String,
    pub(super) text: String,
}

/// Two rhyming lines each. `{a}` and `{b}` stand for themes of the prompt, with their article if they have
/// one; `{n}` and, with a capital, `{N}` for the first one without. No verb may have to agree with them.
const VERSE: &[[&str; 2]] = &[
    ["I wrote {a} on the window in the rain", "And watched the letters run and form again"],
    ["There's a lamp on the table and a kettle that sings", "And a whisper of {a} in the smallest of things"],
    ["We left before morning with the radio low", "With {a} as the only direction to go"],
    ["The street still remembers the sound of our feet", "How {a} met {b} at the end of the street"],
    ["You folded up {a} in the back of a book", "And I found it by chance, and I knew with one look"],
    ["The ferry is leaving, the gulls make a row", "I'm thinking of {a}, I'm thinking of now"],
    ["Some things you can carry and some you let fall", "I kept only {a}, and I think that was all"],
    ["The moon was a coin on the roof of the town", "And {a} came to meet us, and never looked down"],
    ["My grandmother told me, her hands in the dough", "That {a} will find you wherever you go"],
    [
        "There's dust on the records, there's light on the floor",
        "And we still hear {a} when they open the door",
    ],
    ["We counted the stations, we counted the stars", "We talked about {a} over noise from the cars"],
    ["The orchard was silver, the evening was wide", "With {a} and {b} walking there side by side"],
    ["A postcard from nowhere, a song with no end", "It says only {a}, and it's signed from a friend"],
    ["I've got no good reason, I've got no good plan", "Just {a} in my pocket, and we'll see if I can"],
];

const CHORUS: &[[&str; 2]] = &[
    ["Oh, {n}, stay a little while", "I'd cross the dark for half a smile"],
    ["Sing it for {a}, sing it out loud", "One small voice going over the crowd"],
    ["And {n}, {n}, carry me through", "Every road that I know turns back to you"],
    ["Hold on to {a}, hold on to me", "We're light on the water, we're salt on the sea"],
    ["Let it be {a}, let it be tonight", "Let it be the two of us, running for the light"],
    ["So here's to {a}, and here's to the slow", "Long way around that we're happy to go"],
    ["Oh, give me {a}, give me one more day", "I had all these words and none of them would stay"],
    ["And if it's {a} that the morning will bring", "Then open the window and teach me to sing"],
];

const BRIDGE: &[[&str; 2]] = &[
    ["And maybe the quiet is all that we need", "A handful of {a}, a handful of seed"],
    ["If I lose the tune, then just hum it along", "We had only {a} before there was a song"],
    ["One breath for {a}, one breath for the night", "One for whoever is turning out the light"],
    ["Don't tell me it's over, don't tell me it's late", "I can hear {a} swinging on somebody's gate"],
];

const TITLES: &[&str] = &[
    "{N} After Midnight",
    "Song for {N}",
    "{N}, Slowly",
    "The Year of {N}",
    "Where {N} Goes",
    "{N} and the Long Way Home",
    "Half a Mile of {N}",
    "Letters to {N}",
    "{N} in the Rain",
    "All the Light in {N}",
];

const THEMES_MAX: usize = 12;

/// What a song is about whose prompt says nothing.
const PLAIN: &[&str] = &["morning", "rivers", "summer", "harbours"];

/// What a theme keeps before it. "A" becomes "the": the song has met it by then.
const ARTICLES: &[[&str; 2]] = &[
    ["the", "the"],
    ["a", "the"],
    ["an", "the"],
    ["my", "my"],
    ["your", "your"],
    ["our", "our"],
    ["no", "no"],
];

/// Words that say nothing about what a song is about.
const FILLERS: &str = "the and for with about that this from into over under your their there then them they \
    have has had was were are not but you our his her its who what when where which while will would could \
    should can may just very some any all one two more most less like make makes made write wrote sing song \
    songs lyrics verse verses chorus bridge music track tune please want need give lot bit kind style mood \
    genre tempo slow fast upbeat calm happy sad soft loud warm dark short long old new young little big pop \
    rock folk jazz blues ballad love-song describe description called titled named sung male female vocal vocals \
    ein eine einen der die das und mit von für über auf lied song ist im am dem den des zu";

/// Writes a song about `prompt`; the same chance writes the same one.
pub(super) fn write(prompt: &str, chance: &mut Chance) -> Words {
    let themes = themes(prompt, chance);
    let title = fill(chance.pick::<&str>(TITLES), &themes);
    let mut verses = VERSE.to_vec();
    let mut choruses = CHORUS.to_vec();
    chance.shuffle(&mut verses);
    chance.shuffle(&mut choruses);
    let chorus = stanza("[Chorus]", &choruses[..2], &themes, 0);
    let bridge = *chance.pick(BRIDGE);
    let stanzas = [
        stanza("[Verse 1]", &verses[..2], &themes, 0),
        chorus.clone(),
        stanza("[Verse 2]", &verses[2..4], &themes, 2),
        chorus.clone(),
        stanza("[Bridge]", &[bridge], &themes, 1),
        chorus,
    ];
    Words { title, text: stanzas.join("\n\n") }
}

/// Something a song is about.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Theme {
    article: &'static str,
    noun: String,
}

/// The telling words of a prompt, in an order of its own for each song; never empty.
fn themes(prompt: &str, chance: &mut Chance) -> Vec<Theme> {
    let prompt = without_words(prompt).to_lowercase();
    let mut themes: Vec<Theme> = Vec::new();
    let mut before = "";
    for word in prompt.split(|letter: char| !(letter.is_alphanumeric() || "'’-".contains(letter))) {
        let noun = word.trim_matches(['-', '\'', '’']);
        let known = themes.iter().any(|theme| theme.noun == noun);
        if is_telling(noun) && !known && themes.len() < THEMES_MAX {
            let article = ARTICLES.iter().find(|[read, _]| *read == before);
            themes.push(Theme { article: article.map_or("", |[_, kept]| kept), noun: noun.to_owned() });
        }
        before = word;
    }
    if themes.is_empty() {
        themes.push(Theme { article: "", noun: (*chance.pick(PLAIN)).to_owned() });
    }
    chance.shuffle(&mut themes);
    themes
}

fn is_telling(word: &str) -> bool {
    (3..=20).contains(&word.chars().count())
        && !word.chars().any(char::is_numeric)
        && !FILLERS.split_whitespace().any(|filler| filler == word)
}

/// `from` lets each stanza begin with another theme.
fn stanza(heading: &str, couplets: &[[&str; 2]], themes: &[Theme], from: usize) -> String {
    let mut text = String::from(heading);
    for (number, couplet) in couplets.iter().enumerate() {
        let mut turned = themes.to_vec();
        turned.rotate_left((from + number) % themes.len());
        for line in couplet {
            text.push('\n');
            text.push_str(&fill(line, &turned));
        }
    }
    text
}

fn fill(line: &str, themes: &[Theme]) -> String {
    let full = |theme: &Theme| format!("{} {}", theme.article, theme.noun).trim_start().to_owned();
    let second = themes.get(1).map_or_else(|| String::from("the night"), full);
    line.replace("{a}", &full(&themes[0]))
        .replace("{b}", &second)
        .replace("{n}", &themes[0].noun)
        .replace("{N}", &titled(&themes[0].noun))
}

fn titled(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn song(prompt: &str, seed: u64) -> Words {
        write(prompt, &mut Chance::new(seed, 0))
    }

    #[test]
    fn a_song_has_its_parts_and_the_words_of_its_prompt() {
        let song = song("A calm folk song about lanterns over the harbour", 1);
        let headings: Vec<_> = song.text.lines().filter(|line| line.starts_with('[')).collect();
        assert_eq!(headings, ["[Verse 1]", "[Chorus]", "[Verse 2]", "[Chorus]", "[Bridge]", "[Chorus]"]);
        assert!(song.text.contains("lanterns") && song.text.contains("harbour"), "{}", song.text);
        assert!(!song.text.contains('{') && !song.title.contains('{'));
    }

    #[test]
    fn a_theme_keeps_its_article() {
        let themes = themes("A dog by the sea, my tractor and rain", &mut Chance::new(1, 1));
        let mut shown: Vec<_> =
            themes.iter().map(|theme| format!("{} {}", theme.article, theme.noun)).collect();
        shown.sort();
        assert_eq!(shown, [" rain", "my tractor", "the dog", "the sea"]);
    }

    #[test]
    fn the_same_chance_writes_the_same_song_and_another_another() {
        assert_eq!(song("rain on tin", 1), song("rain on tin", 1));
        assert_ne!(song("rain on tin", 1).text, song("rain on tin", 2).text);
    }

    #[test]
    fn every_prompt_makes_a_song_that_can_be_sung() {
        for prompt in
            ["", "1234", "sim:lose", "雨の夜の東京", "ein Lied über Straßenlaternen", &"x".repeat(500)]
        {
            let song = song(prompt, 3);
            assert!(song.text.len() < 3_000 && !song.text.contains("sim:"), "{prompt}");
            assert!((5..80).contains(&song.title.chars().count()), "{}", song.title);
        }
    }
}
