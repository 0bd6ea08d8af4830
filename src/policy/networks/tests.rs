use proptest::prelude::*;

use super::*;

fn nets(written: &[&str]) -> Vec<IpNet> {
    let network = |text: &&str| text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    written.iter().map(network).collect::<Result<_, _>>().expect("networks")
}

fn of(allow: &[&str], deny: &[&str]) -> Networks {
    Networks::new(&Config { allow: nets(allow), deny: nets(deny), enforce: Enforce::Yes })
}

fn check(networks: &Networks, address: &str) -> Result<(), Refusal> {
    networks.check(address.parse().expect("an address"))
}

#[test]
fn without_allow_all_pass_that_are_not_denied() {
    let networks = of(&[], &["192.0.2.0/24", "2001:db8::/32", "198.51.100.7"]);
    for address in ["192.0.2.0", "192.0.2.255", "2001:db8::1", "198.51.100.7"] {
        assert_eq!(check(&networks, address), Err(Refusal::Denied), "{address}");
    }
    for address in ["192.0.1.255", "192.0.3.0", "2001:db9::", "198.51.100.8", "::1"] {
        assert_eq!(check(&networks, address), Ok(()), "{address}");
    }
}

#[test]
fn with_allow_only_those_pass_that_it_has() {
    let networks = of(&["10.0.0.0/8", "::1"], &[]);
    assert_eq!(check(&networks, "10.255.255.255"), Ok(()));
    assert_eq!(check(&networks, "::1"), Ok(()));
    assert_eq!(check(&networks, "11.0.0.0"), Err(Refusal::NotAllowed));
    assert_eq!(check(&networks, "::2"), Err(Refusal::NotAllowed));
}

#[test]
fn an_unknown_client_is_not_allowed_where_its_balancer_is() {
    let check = |networks: Networks, balancer: &str| {
        networks.check_unknown(balancer.parse().expect("an address"))
    };
    assert_eq!(check(of(&["10.0.0.0/8"], &[]), "10.0.0.1"), Err(Refusal::Unknown));
    assert_eq!(check(of(&["0.0.0.0/0", "::/0"], &[]), "10.0.0.1"), Err(Refusal::Unknown));
    assert_eq!(check(of(&["192.0.2.0/24"], &[]), "10.0.0.1"), Err(Refusal::Unknown));
    assert_eq!(check(of(&[], &["192.0.2.0/24"]), "10.0.0.1"), Ok(()));
    assert_eq!(check(of(&[], &["10.0.0.0/8"]), "10.0.0.1"), Err(Refusal::Denied));
}

#[test]
fn deny_wins_whichever_network_is_smaller() {
    let smaller = of(&["10.0.0.0/8"], &["10.6.6.0/24"]);
    assert_eq!(check(&smaller, "10.6.6.6"), Err(Refusal::Denied));
    assert_eq!(check(&smaller, "10.6.7.6"), Ok(()));
    let larger = of(&["10.6.6.0/24"], &["10.0.0.0/8"]);
    assert_eq!(check(&larger, "10.6.6.6"), Err(Refusal::Denied));
}

#[test]
fn a_network_of_one_family_has_no_address_of_the_other() {
    let networks = of(&["::/0"], &[]);
    assert_eq!(check(&networks, "192.0.2.1"), Err(Refusal::NotAllowed));
    assert_eq!(check(&networks, "2001:db8::1"), Ok(()));
    assert_eq!(check(&of(&["0.0.0.0/0"], &[]), "::1"), Err(Refusal::NotAllowed));
}

#[test]
fn ipv4_written_as_ipv6_is_ipv4() {
    assert_eq!(check(&of(&["10.0.0.0/8"], &[]), "::ffff:10.1.2.3"), Ok(()));
    let read = |yaml: &str| serde_yaml::from_str::<Config>(yaml).expect("valid");
    let config = read("allow: ['::ffff:10.0.0.0/104, ::ffff:192.0.2.1', '::ffff:0:0/90']");
    assert_eq!(config.allow, nets(&["10.0.0.0/8", "192.0.2.1", "::ffff:0:0/90"]));
}

#[test]
fn an_empty_list_is_a_mistake() {
    for yaml in ["allow: []", "deny: []", "allow: [10.0.0.0/8]\ndeny: []"] {
        let error = serde_yaml::from_str::<Config>(yaml).expect_err(yaml);
        assert!(error.to_string().contains("at least one network"), "{error}");
    }
}

/// A network among a few addresses, so that they overlap.
fn network() -> impl Strategy<Value = IpNet> {
    prop_oneof![
        (0..64_u32, 24..=32_u8).prop_map(|(address, prefix)| {
            let net = Ipv4Net::new(std::net::Ipv4Addr::from_bits(address), prefix);
            IpNet::V4(net.expect("a prefix"))
        }),
        (0..64_u128, 120..=128_u8).prop_map(|(address, prefix)| {
            let net = ipnet::Ipv6Net::new(std::net::Ipv6Addr::from_bits(address), prefix);
            IpNet::V6(net.expect("a prefix"))
        }),
    ]
}

proptest! {
    #[test]
    fn the_compiled_lists_say_what_the_written_ones_say(
        allow in prop::collection::vec(network(), 0..5),
        deny in prop::collection::vec(network(), 0..5),
    ) {
        let config = Config { allow, deny, enforce: Enforce::Yes };
        let networks = Networks::new(&config);
        for bits in 0..300_u32 {
            for address in [
                IpAddr::from(std::net::Ipv4Addr::from_bits(bits)),
                IpAddr::from(std::net::Ipv6Addr::from_bits(bits.into())),
            ] {
                let has = |list: &[IpNet]| list.iter().any(|net| net.contains(&address));
                let expected = if has(&config.deny) {
                    Err(Refusal::Denied)
                } else if !config.allow.is_empty() && !has(&config.allow) {
                    Err(Refusal::NotAllowed)
                } else {
                    Ok(())
                };
                prop_assert_eq!(networks.check(address), expected, "{}", address);
            }
        }
    }
}
