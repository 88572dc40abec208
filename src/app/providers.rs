//! The configured providers, each behind its limits (PROV-1). A new one is one function and one line here.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;

use super::StartError;
use crate::config::{self, Config};
use crate::provider::gate::{BreakerRules, Gate, Limits, Rate};
use crate::provider::http::{Http, Timeouts};
use crate::provider::minimax::{Keep, Minimax, MinimaxSettings, OutputFormat};
use crate::provider::mureka::{Mureka, MurekaSettings};
use crate::provider::musicgpt::{MusicGpt, MusicGptSettings};
use crate::provider::suno::{Dialect, Stems, Suno, SunoSettings};
use crate::provider::{Capabilities, Member, Providers, SharedProvider};
use crate::simulator::Simulator;

/// In the order of preference. `keep` takes the audio that comes inside an answer.
pub(super) fn providers(
    config: &Config,
    simulator: Option<&Simulator>,
    keep: Keep,
) -> Result<Providers, StartError> {
    let members = [
        suno(config, simulator)?,
        mureka(config, simulator)?,
        minimax(config, simulator, keep)?,
        musicgpt(config, simulator)?,
    ];
    Ok(Providers::new(members.into_iter().flatten()))
}

/// Where a provider is to be found, and as whom we come.
struct Place {
    base_url: String,
    key: SecretString,
    /// It is the simulator that runs inside this program.
    simulated: bool,
    /// Nobody shows a key, so the limits that the real one tells of do not hold.
    local: bool,
    limits: Limits,
    timeouts: Timeouts,
}

impl Place {
    /// `None` where this provider is not to be used. `documented` is the limit that the real one tells of, and
    /// which holds unless the configuration says otherwise.
    fn of(
        config: &Config,
        able: &Capabilities,
        wanted: &config::Provider,
        real_url: &str,
        documented: Option<Rate>,
        simulator: Option<&Simulator>,
    ) -> Option<Self> {
        let (base_url, simulated) = match (&wanted.base_url, &wanted.api_key, simulator) {
            _ if !wanted.enabled => return None,
            (Some(url), _, _) => (url.clone(), false),
            (None, Some(_), _) => (real_url.to_owned(), false),
            (None, None, Some(simulator)) => (format!("http://{}/{}", simulator.address(), able.name), true),
            (None, None, None) => return None,
        };
        let local = simulated || wanted.api_key.is_none();
        let submit =
            able.submit_timeout.map_or(config.tasks.call_timeout, |own| own.max(config.tasks.call_timeout));
        Some(Self {
            base_url,
            key: wanted.api_key.clone().unwrap_or_else(|| SecretString::from("simulated")),
            simulated,
            local,
            limits: Limits {
                rate: wanted.rate_limit.or(documented.filter(|_| !local)),
                tasks_max: wanted.max_concurrent.map(|max| usize::try_from(max).unwrap_or(usize::MAX)),
                breaker: BreakerRules {
                    failures: wanted.breaker.failures,
                    open_for: wanted.breaker.open_for,
                },
            },
            timeouts: Timeouts { submit, ..Timeouts::default() },
        })
    }

    /// `documented` is how many tasks at once the real one tells of; as for `rate`, the configuration comes first.
    fn tasks_at_most(mut self, documented: usize) -> Self {
        self.limits.tasks_max = self.limits.tasks_max.or((!self.local).then_some(documented));
        self
    }

    fn http(&self, name: &str) -> Result<Http, StartError> {
        Http::new(&self.base_url, self.timeouts)
            .map_err(|error| StartError(format!("providers.{name}.base_url: {error}")))
    }

    fn member(&self, provider: SharedProvider) -> Member {
        let gate = Gate::of(provider.capabilities().name, self.limits);
        Member::new(provider, gate)
    }
}

fn rate(requests: u32, window: Duration) -> Option<Rate> {
    NonZeroU32::new(requests).map(|requests| Rate { requests, window })
}

fn suno(config: &Config, simulator: Option<&Simulator>) -> Result<Option<Member>, StartError> {
    let wanted = &config.providers.suno;
    let (dialect, url) = match wanted.dialect {
        config::Dialect::SunoApi => (Dialect::Sunoapi, "https://api.sunoapi.org"),
        config::Dialect::Kie => (Dialect::Kie, "https://api.kie.ai"),
    };
    // 20 requests per 10 s is what the gateway documents (providers/suno.md section 2).
    let documented = rate(20, Duration::from_secs(10));
    let able = crate::provider::suno::capabilities();
    let Some(place) = Place::of(config, able, wanted, url, documented, simulator) else { return Ok(None) };
    let mut settings = SunoSettings::new(place.base_url.clone(), place.key.clone());
    settings.dialect = dialect;
    settings.webhook_secret.clone_from(&wanted.webhook_secret);
    if wanted.webhook_secret.is_some() && dialect == Dialect::Sunoapi {
        tracing::warn!(
            url = place.base_url,
            "callbacks are taken only with a signature over their body (providers.suno.webhook_secret), and sunoapi.org \
             makes none: where this gateway does not either, songs are found by polls alone"
        );
    }
    settings.stems = match wanted.stems {
        config::Stems::Two => Stems::Two,
        config::Stems::Twelve => Stems::Twelve,
    };
    if place.simulated {
        settings.cdn_url = format!("{}/cdn", place.base_url);
        settings.cdn_suffix = ".wav".to_owned();
    }
    if let Some(url) = &wanted.cdn_url {
        settings.cdn_url.clone_from(url);
    }
    if let Some(model) = &wanted.model {
        settings.default_model.clone_from(model);
    }
    Ok(Some(place.member(Arc::new(Suno::new(settings, place.http("suno")?)))))
}

fn mureka(config: &Config, simulator: Option<&Simulator>) -> Result<Option<Member>, StartError> {
    let wanted = &config.providers.mureka;
    let able = crate::provider::mureka::capabilities();
    let Some(place) = Place::of(config, able, wanted, "https://api.mureka.ai", None, simulator) else {
        return Ok(None);
    };
    // What the lowest level of recharge may do (providers/mureka.md section 4); no rate is documented.
    let place = place.tasks_at_most(5);
    let mut settings = MurekaSettings::new(place.base_url.clone(), place.key.clone());
    if let Some(model) = &wanted.model {
        settings.default_model.clone_from(model);
    }
    Ok(Some(place.member(Arc::new(Mureka::new(settings, place.http("mureka")?)))))
}

fn minimax(config: &Config, simulator: Option<&Simulator>, keep: Keep) -> Result<Option<Member>, StartError> {
    let wanted = &config.providers.minimax;
    // A paid account's limits (providers/minimax.md section 4); each call holds one of the connections.
    let documented = rate(120, Duration::from_secs(60));
    let able = crate::provider::minimax::capabilities();
    let Some(place) = Place::of(config, able, wanted, "https://api.minimax.io", documented, simulator) else {
        return Ok(None);
    };
    let place = place.tasks_at_most(20);
    let mut settings = MinimaxSettings::new(place.base_url.clone(), place.key.clone(), keep);
    settings.output_format = match wanted.output_format {
        config::OutputFormat::Url => OutputFormat::Url,
        config::OutputFormat::Hex => OutputFormat::Hex,
    };
    if let Some(model) = &wanted.model {
        settings.default_model.clone_from(model);
    }
    Ok(Some(place.member(Arc::new(Minimax::new(settings, place.http("minimax")?)))))
}

fn musicgpt(config: &Config, simulator: Option<&Simulator>) -> Result<Option<Member>, StartError> {
    let wanted = &config.providers.musicgpt;
    let url = "https://api.musicgpt.com/api/public";
    // The free level (providers/musicgpt.md section 6): 20 polls a minute and one generation at once. Which level a
    // key has cannot be asked, and a dearer one is a setting away. Submissions share the polls' limit: with one
    // generation at once they are few.
    let documented = rate(20, Duration::from_secs(60));
    let able = crate::provider::musicgpt::capabilities();
    let Some(place) = Place::of(config, able, wanted, url, documented, simulator) else {
        return Ok(None);
    };
    let place = place.tasks_at_most(1);
    let mut settings = MusicGptSettings::new(place.base_url.clone(), place.key.clone());
    if let Some(model) = &wanted.model {
        settings.default_model.clone_from(model);
    }
    Ok(Some(place.member(Arc::new(MusicGpt::new(settings, place.http("musicgpt")?)))))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::api::wishes::ASKED_FOR;
    use crate::simulator::{self, Options};

    /// Where nothing is configured, all there are are simulated.
    #[actix_web::test]
    async fn every_provider_there_is_may_be_asked_for_by_its_name() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let simulator = simulator::start(listener, Options::default()).expect("a simulator");
        let keep: Keep = Arc::new(|_, _| Err(std::io::ErrorKind::Unsupported.into()));
        let Ok(there) = providers(&Config::default(), Some(&simulator), keep) else {
            panic!("they are made")
        };
        let names: Vec<_> = ["auto"].into_iter().chain(there.names()).collect();
        assert_eq!(ASKED_FOR, names);
        simulator.stop().await;
    }
}
