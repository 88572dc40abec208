//! What users read of a failure: never the provider's words, and where it is over, what they can do (PROV-8, PROV-15).
//!
//! Pure. Of a provider's words only what they name is passed on, in words of ours. Not here: which class a failure
//! has, and whether it is tried again (`failure`).

use super::{Class, Failure, ModerationReason, TOO_FEW_LYRICS};

const SHORT_OF_CAPACITY: &str = "The service is short of capacity. Please try again later.";

impl Failure {
    /// What the user reads where it has ended: what happened, and what to do or to change.
    pub fn user_text(&self) -> &'static str {
        match (self.class, self.reason) {
            (Class::Moderation, Some(reason)) => reason.user_text(),
            (Class::Moderation, None) => {
                "The text was refused by the music service. Please change its wording and try again."
            }
            (Class::InvalidInput, _) => self.input_text(),
            (Class::ProviderError, _) if self.operator => SHORT_OF_CAPACITY,
            (Class::InsufficientProviderCredits, _) => SHORT_OF_CAPACITY,
            (Class::RateLimited, _) => {
                "The music service has too much to do at the moment. Please try again later."
            }
            (Class::Network, _) => "The music service could not be reached. Please try again later.",
            (Class::ProviderError, _) if self.code.as_deref() == Some(TOO_FEW_LYRICS) => {
                "The music service wrote fewer than two texts to choose from. Please try again."
            }
            (Class::ProviderError | Class::Unknown, _) => "The generation failed. Please try again.",
            (Class::Timeout, _) => "The generation took too long. Please try again.",
            (Class::Storage, _) => "What was made could not be stored. Please try again.",
        }
    }

    /// What the user reads as long as it goes on: there is nothing to be done.
    pub fn text_meanwhile(&self) -> &'static str {
        match self.class {
            Class::RateLimited => "Too many requests at the moment. It goes on as soon as possible.",
            Class::Network => "The music service could not be reached. It is tried again.",
            Class::Storage => "What was made could not be stored. It is tried again.",
            Class::InsufficientProviderCredits => "The service is short of capacity. It is tried again.",
            Class::Timeout => "The generation took too long. It is tried again.",
            Class::ProviderError | Class::Unknown | Class::InvalidInput | Class::Moderation => {
                "The generation failed. It is tried again."
            }
        }
    }

    /// Which field was not accepted, and why, as far as the provider's words name them.
    fn input_text(&self) -> &'static str {
        let text = self.message.to_lowercase();
        let words: Vec<&str> = text.split(|sign: char| !sign.is_alphanumeric()).collect();
        let names = |any: &[&str]| any.iter().any(|word| words.contains(word));
        let says = |any: &[&str]| any.iter().any(|part| text.contains(part));
        let long = says(&["too long", "more than", "at most", "exceed"]);
        let lacking = says(&["required", "missing", "empty"]);
        if says(&["invisible characters"]) {
            return "The text has too many invisible characters. Please write it anew.";
        }
        if says(&["has been taken offline"]) {
            return "The music service no longer has the song that this is made from.";
        }
        // What we sent the address of (`suno.md` section 4).
        if self.code.as_deref() == Some("451") || says(&["unable to download"]) {
            return "The recording could not be fetched from its address. Please check that it can be reached.";
        }
        match () {
            () if names(&["title"]) && long => {
                "The title is too long for the music service. Please shorten it."
            }
            () if names(&["tags", "style"]) && long => {
                "The style tags are too long for the music service. Please use fewer of them."
            }
            () if names(&["lyrics"]) && long => {
                "The lyrics are too long for the music service. Please shorten them."
            }
            // Suno calls by this name what is sung, too.
            () if names(&["prompt", "topic"]) && long => {
                "The prompt or the lyrics are too long for the music service. Please shorten them."
            }
            () if names(&["lyrics"]) && lacking => {
                "The music service needs lyrics for this song. Please write some."
            }
            () if names(&["prompt"]) && lacking => {
                "The music service needs a prompt for this song. Please write one."
            }
            () if names(&["lyrics"]) => "The music service did not accept the lyrics. Please change them.",
            () if names(&["prompt"]) => "The music service did not accept the prompt. Please change it.",
            () if names(&["title"]) => "The music service did not accept the title. Please change it.",
            () if names(&["tags", "style"]) => {
                "The music service did not accept the style tags. Please change them."
            }
            () => "The music service did not accept this request. Please check the text and the options.",
        }
    }
}

impl ModerationReason {
    const fn user_text(self) -> &'static str {
        match self {
            ModerationReason::ArtistReference => {
                "The text names an artist. Please describe the sound instead of naming who it should sound like."
            }
            ModerationReason::ProducerTag => {
                "The text contains a producer's tag. Please remove it and try again."
            }
            ModerationReason::Copyright => {
                "The words or the audio seem to belong to an existing work. Please use your own."
            }
            ModerationReason::Inappropriate => {
                "The text contains words that are not allowed. Please change the wording."
            }
            ModerationReason::Flagged => {
                "The text was flagged by the music service. Please change the wording or the topic."
            }
            ModerationReason::Malformed => {
                "The text could not be understood. Please write it as plain sentences, without brackets or symbols."
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::class_of_message;
    use super::*;

    #[test]
    fn users_never_read_the_providers_words() {
        for class in Class::ALL {
            let failure = Failure::new(class, "UPSTREAM WORDS").code("E77");
            for text in [failure.user_text(), failure.text_meanwhile()] {
                assert!(!text.is_empty() && !text.contains("UPSTREAM") && !text.contains("E77"));
            }
        }
    }

    #[test]
    fn a_failure_that_is_over_says_what_to_do_and_promises_nothing() {
        for class in Class::ALL {
            let text = Failure::new(class, "").user_text();
            assert!(text.contains("Please") && !text.contains("goes on"), "{class:?}: {text}");
            assert!(!Failure::new(class, "").text_meanwhile().contains("Please"), "{class:?}");
        }
    }

    #[test]
    fn a_refusal_says_what_to_change() {
        let message = "Song Description contained artist name: someone";
        let (class, reason) = class_of_message(message).unwrap();
        let failure = Failure::new(class, message).reason(reason);
        assert!(failure.user_text().contains("artist"));
        assert!(!failure.retryable());
    }

    #[test]
    fn input_that_was_not_accepted_is_named_with_the_reason() {
        for (message, text) in [
            ("Tags too long", "The style tags are too long for the music service. Please use fewer of them."),
            ("Title too long", "The title is too long for the music service. Please shorten it."),
            (
                "Input Prompt cannot be more than 300 characters",
                "The prompt or the lyrics are too long for the music service. Please shorten them.",
            ),
            (
                "invalid params, lyrics is required",
                "The music service needs lyrics for this song. Please write some.",
            ),
            (
                "Invalid request parameters: lyrics",
                "The music service did not accept the lyrics. Please change them.",
            ),
            (
                "invisible characters exceed the limit",
                "The text has too many invisible characters. Please write it anew.",
            ),
            (
                "song id does not exist or has been taken offline",
                "The music service no longer has the song that this is made from.",
            ),
            (
                "record exists already",
                "The music service did not accept this request. Please check the text and the options.",
            ),
        ] {
            assert_eq!(Failure::new(Class::InvalidInput, message).user_text(), text, "{message}");
        }
        let unreachable = Failure::new(Class::InvalidInput, "Unable to download the related file").code(451);
        assert!(unreachable.user_text().contains("could not be fetched"));
    }
}
