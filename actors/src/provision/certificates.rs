//! The federation's own authority and what it signs. The certificates are `rcgen`'s work.

use std::net::IpAddr;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};

use super::ProvisionError;
use crate::link::subjects::RunId;
use crate::registry::MemberName;

/// Years that the authority itself holds.
const AUTHORITY_YEARS: i16 = 10;

/// A certificate and its key, as text.
pub struct Signed {
    /// The certificate.
    pub cert: String,
    /// The key.
    pub key: String,
    /// Last day on which it holds.
    pub until: Date,
}

/// Signs certificates of one federation.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
}

/// Name of a member on the broker: what the broker reads off its certificate.
pub fn user(member: MemberName, run: &RunId) -> String {
    format!("{member}@{run}.fellrec")
}

impl Authority {
    /// A new one, with its certificate.
    ///
    /// # Errors
    /// [`ProvisionError::Certificate`].
    pub fn new(run: &RunId) -> Result<(Self, Signed), ProvisionError> {
        let key = KeyPair::generate()?;
        let until = today().saturating_add(AUTHORITY_YEARS.years());
        let mut params = Self::params(run);
        hold(&mut params, until);
        let signed =
            Signed { cert: params.self_signed(&key)?.pem(), key: key.serialize_pem(), until };
        Ok((Self { issuer: Issuer::new(Self::params(run), key) }, signed))
    }

    /// The one whose key this is.
    ///
    /// # Errors
    /// The text is no key.
    pub fn from_key(run: &RunId, key: &str) -> Result<Self, ProvisionError> {
        Ok(Self { issuer: Issuer::new(Self::params(run), KeyPair::from_pem(key)?) })
    }

    /// Certificates name their issuer by these and by its key, so that the key is all that has to be kept.
    fn params(run: &RunId) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = name(&format!("fellrec {run} authority"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
    }

    /// For a member.
    ///
    /// # Errors
    /// [`ProvisionError::Certificate`].
    pub fn member(
        &self,
        member: MemberName,
        run: &RunId,
        days: u16,
    ) -> Result<Signed, ProvisionError> {
        let email = SanType::Rfc822Name(user(member, run).try_into()?);
        self.sign(&member.to_string(), vec![email], ExtendedKeyUsagePurpose::ClientAuth, days)
    }

    /// For the broker at `host`, which is also reached on the machine itself.
    ///
    /// # Errors
    /// [`ProvisionError::Certificate`]: a host name that is none, too.
    pub fn broker(&self, host: &str, days: u16) -> Result<Signed, ProvisionError> {
        let mut names = vec![
            SanType::DnsName("localhost".try_into()?),
            SanType::IpAddress(IpAddr::from([127, 0, 0, 1])),
        ];
        names.push(match host.parse() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(host.try_into()?),
        });
        names.dedup();
        self.sign("broker", names, ExtendedKeyUsagePurpose::ServerAuth, days)
    }

    fn sign(
        &self,
        common_name: &str,
        alternatives: Vec<SanType>,
        usage: ExtendedKeyUsagePurpose,
        days: u16,
    ) -> Result<Signed, ProvisionError> {
        let key = KeyPair::generate()?;
        let until = today().saturating_add(i32::from(days).days());
        let mut params = CertificateParams::default();
        params.distinguished_name = name(common_name);
        params.subject_alt_names = alternatives;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        hold(&mut params, until);
        let cert = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Signed { cert, key: key.serialize_pem(), until })
    }
}

fn name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "fellrec");
    name.push(DnType::CommonName, common_name);
    name
}

/// In UTC, as certificates count.
pub fn today() -> Date {
    Timestamp::now().to_zoned_datetime(TimeZone::UTC).date()
}

/// Clocks of members may be behind ours, by hours of time zone at the worst.
fn yesterday() -> Date {
    today().saturating_sub(1.day())
}

fn hold(params: &mut CertificateParams, until: Date) {
    let day = |date: Date| {
        let (month, day) = (date.month().unsigned_abs(), date.day().unsigned_abs());
        date_time_ymd(date.year().into(), month, day)
    };
    (params.not_before, params.not_after) = (day(yesterday()), day(until));
}
