//! Where fetches may go. Tenants write the URLs of issuers, and the operator stands where tenants do not: beside the API
//! server, the nodes and the cloud's metadata. It must not know who is fetched from.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// What the operator may be made to call. The default is the strictest: public addresses, by https.
///
/// Private ranges are refused unless they are listed. Issuers of a company's own live there, and so do the cluster's pods,
/// Services and API server: only who installs the operator knows which range is which.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FetchRules {
    /// Keys that come in clear text are anybody's who is on the way.
    pub allow_http: bool,
    /// Ranges that may be called although they are not public.
    pub networks: Vec<IpNet>,
}

/// Why an address is not called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotPublic {
    Loopback,
    /// Of one link: the metadata of most clouds is there.
    LinkLocal,
    /// The metadata of a cloud, at an address that looks public.
    Metadata,
    Private,
    /// No host of the Internet has it.
    Reserved,
}

impl FetchRules {
    /// For somebody who could call all of it as well without this program.
    #[must_use]
    pub fn unrestricted() -> Self {
        Self {
            allow_http: true,
            networks: vec![
                IpNet::new_assert(Ipv4Addr::UNSPECIFIED.into(), 0),
                IpNet::new_assert(Ipv6Addr::UNSPECIFIED.into(), 0),
            ],
        }
    }

    /// # Errors
    /// What the address is that is not called.
    pub fn permit(&self, address: IpAddr) -> Result<(), NotPublic> {
        let address = address.to_canonical();
        if self.networks.iter().any(|network| network.contains(&address)) {
            return Ok(());
        }
        match address {
            IpAddr::V4(address) => public_v4(address),
            IpAddr::V6(address) => public_v6(address),
        }
    }

    /// Whether a pod may be called at this address, which whoever may write pods' status can choose. Clusters give pods
    /// private addresses, and reserved ones too; none gives those of a host or of a link, or of nobody in particular.
    #[must_use]
    pub fn permit_pod(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        match self.permit(address) {
            Ok(()) | Err(NotPublic::Private) => true,
            Err(NotPublic::Loopback | NotPublic::LinkLocal | NotPublic::Metadata) => false,
            Err(NotPublic::Reserved) => match address {
                IpAddr::V4(address) => {
                    address.octets()[0] != 0 && !address.is_multicast() && !address.is_broadcast()
                }
                // The first are unspecified, or say an IPv4 address as it was once written.
                IpAddr::V6(address) => !address.is_multicast() && address.segments()[..6] != [0; 6],
            },
        }
    }
}

/// RFC 6890 and its registry.
fn public_v4(address: Ipv4Addr) -> Result<(), NotPublic> {
    // Azure's, which every virtual machine there reaches.
    const WIRE_SERVER: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);
    let [a, b, c, _] = address.octets();
    match (a, b, c) {
        (127, ..) => Err(NotPublic::Loopback),
        (169, 254, _) => Err(NotPublic::LinkLocal),
        (10, ..) | (172, 16..=31, _) | (192, 168, _) | (100, 64..=127, _) => Err(NotPublic::Private),
        (0 | 224..=255, ..)
        | (192, 0, 0 | 2)
        | (192, 88, 99)
        | (198, 18..=19, _)
        | (198, 51, 100)
        | (203, 0, 113) => Err(NotPublic::Reserved),
        _ if address == WIRE_SERVER => Err(NotPublic::Metadata),
        _ => Ok(()),
    }
}

fn public_v6(address: Ipv6Addr) -> Result<(), NotPublic> {
    let segments = address.segments();
    let embedded = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        Ipv4Addr::new(a, b, c, d)
    };
    match segments {
        [0, 0, 0, 0, 0, 0, 0, 1] => Err(NotPublic::Loopback),
        [0xfe80..=0xfebf, ..] => Err(NotPublic::LinkLocal),
        [0xfc00..=0xfdff | 0xfec0..=0xfeff, ..] | [0x64, 0xff9b, 1, ..] => Err(NotPublic::Private),
        // Translated and tunnelled addresses lead to an IPv4 host (RFC 6052, RFC 3056).
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => public_v4(embedded(high, low)),
        [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Err(NotPublic::Reserved),
        [0x2000..=0x3fff, ..] => Ok(()),
        _ => Err(NotPublic::Reserved),
    }
}

impl fmt::Display for NotPublic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Loopback => "a loopback address",
            Self::LinkLocal => "a link-local address",
            Self::Metadata => "the address of a cloud's metadata",
            Self::Private => "a private address",
            Self::Reserved => "a reserved address",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(rules: &FetchRules, address: &str) -> Result<(), NotPublic> {
        rules.permit(address.parse().unwrap())
    }

    #[test]
    fn only_public_addresses_are_called() {
        use NotPublic::{LinkLocal, Loopback, Metadata, Private, Reserved};

        let rules = FetchRules::default();
        for public in [
            "1.1.1.1",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "168.63.129.17",
            "198.17.255.255",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00:1450:4001::200e",
            "64:ff9b::101:101",
            "2002:101:101::1",
            "::ffff:1.1.1.1",
        ] {
            assert_eq!(judge(&rules, public), Ok(()), "{public}");
        }
        for (address, why) in [
            ("127.0.0.1", Loopback),
            ("127.255.255.254", Loopback),
            ("::1", Loopback),
            ("::ffff:127.0.0.1", Loopback),
            ("64:ff9b::7f00:1", Loopback),
            ("2002:7f00:1::", Loopback),
            ("169.254.169.254", LinkLocal),
            ("::ffff:169.254.169.254", LinkLocal),
            ("64:ff9b::a9fe:a9fe", LinkLocal),
            ("fe80::1", LinkLocal),
            ("febf::1", LinkLocal),
            ("168.63.129.16", Metadata),
            ("10.96.0.1", Private),
            ("::ffff:10.96.0.1", Private),
            ("172.16.0.1", Private),
            ("172.31.255.255", Private),
            ("192.168.1.1", Private),
            ("100.100.100.200", Private),
            ("fd00:ec2::254", Private),
            ("fc00::1", Private),
            ("fec0::1", Private),
            ("64:ff9b:1::a00:1", Private),
            ("2002:a00:1::", Private),
            ("0.0.0.0", Reserved),
            ("0.1.2.3", Reserved),
            ("::", Reserved),
            ("::127.0.0.1", Reserved),
            ("192.0.0.8", Reserved),
            ("192.0.2.1", Reserved),
            ("198.18.0.1", Reserved),
            ("198.51.100.1", Reserved),
            ("203.0.113.1", Reserved),
            ("224.0.0.1", Reserved),
            ("240.0.0.1", Reserved),
            ("255.255.255.255", Reserved),
            ("ff02::1", Reserved),
            ("2001::1", Reserved),
            ("2001:db8::1", Reserved),
            ("100::1", Reserved),
        ] {
            assert_eq!(judge(&rules, address), Err(why), "{address}");
        }
    }

    #[test]
    fn networks_that_are_listed_are_called_and_no_others() {
        let rules = FetchRules {
            allow_http: false,
            networks: vec!["10.20.0.0/16".parse().unwrap(), "fd12::/32".parse().unwrap()],
        };
        for listed in ["10.20.255.1", "::ffff:10.20.0.1", "fd12::1", "1.1.1.1"] {
            assert_eq!(judge(&rules, listed), Ok(()), "{listed}");
        }
        for other in ["10.21.0.1", "fd13::1", "169.254.169.254", "64:ff9b::a14:1"] {
            assert!(judge(&rules, other).is_err(), "{other}");
        }
        let all = FetchRules::unrestricted();
        assert!(judge(&all, "127.0.0.1").is_ok() && judge(&all, "::1").is_ok());
    }

    #[test]
    fn pods_are_called_where_pods_can_be() {
        let rules = FetchRules::default();
        let may = |rules: &FetchRules, address: &str| rules.permit_pod(address.parse().unwrap());
        let of_pods = [
            "10.244.0.7",
            "100.64.0.7",
            "198.18.0.7",
            "240.10.0.7",
            "34.1.2.3",
            "fd00::7",
            "2001:db8::7",
        ];
        for address in of_pods {
            assert!(may(&rules, address), "{address}");
        }
        let of_no_pod = [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "168.63.129.16",
            "224.0.0.1",
            "239.1.2.3",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::7f00:1",
            "fe80::1",
            "ff02::1",
        ];
        for address in of_no_pod {
            assert!(!may(&rules, address), "{address}");
        }
        let tests = FetchRules {
            networks: vec!["127.0.0.0/8".parse().unwrap()],
            ..FetchRules::default()
        };
        assert!(may(&tests, "127.0.0.1") && !may(&tests, "::1"));
    }
}
