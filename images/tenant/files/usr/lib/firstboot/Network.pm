# network-config version 2, its ethernets, as files of systemd-networkd. Without such a file the image does DHCP everywhere
# (90-dhcp.network). Network::files(\%config, \&say) gives file name => text.
package Network;
use strict;
use warnings;

# What of an ethernet is understood: key pattern => line, in the section named. "" is understood and needs no line.
my @table = (
	[qr{^addresses/\d+$},             Network => 'Address'],
	[qr{^gateway[46]$},               Network => 'Gateway'],
	[qr{^nameservers/addresses/\d+$}, Network => 'DNS'],
	[qr{^nameservers/search/\d+$},    Network => 'Domains'],
	[qr{^accept-ra$},                 Network => 'IPv6AcceptRA'],
	[qr{^mtu$},                       Link    => 'MTUBytes'],
	[qr{^(?:match/macaddress|match/name|dhcp[46]|optional|routes/\d+/(?:to|via|metric))$}, '' => ''],
);

sub files {
	my ($config, $say) = @_;
	my %c = map { s{^network/}{}r => $config->{$_} } keys %$config;
	if (($c{version} // '') ne '2') {
		$say->("network-config: version " . ($c{version} // 'missing') . " is not supported (only 2): DHCP instead");
		return;
	}
	my %port;
	for (sort keys %c) {
		if (m{^ethernets/([\w.-]+)/(.+)$}) { $port{$1}{$2} = $c{$_} }
		elsif (!/^(?:version|renderer)$/)  { $say->("network-config: not supported: $_") }
	}
	return map { ("10-seed-$_.network" => text($_, $port{$_}, $say)) } sort keys %port;
}

sub text {
	my ($name, $p, $say) = @_;
	my %is = map { $_ => ($p->{$_} // '') =~ /^(?:true|yes|on)$/i } qw(dhcp4 dhcp6);
	my $dhcp = $is{dhcp4} ? $is{dhcp6} ? 'yes' : 'ipv4' : $is{dhcp6} ? 'ipv6' : 'no';
	my $match = $p->{'match/macaddress'} ? "MACAddress=$p->{'match/macaddress'}\nType=ether\n" : 'Name=' . ($p->{'match/name'} || $name) . "\n";
	my %section = (Link => '', Network => "DHCP=$dhcp\n");
	for my $key (sort keys %$p) {
		my ($row) = grep { $key =~ $_->[0] } @table;
		if (!$row) { $say->("network-config: not supported: $name: $key") }
		elsif ($row->[2]) { $section{$row->[1]} .= "$row->[2]=$p->{$key}\n" }
	}
	my $routes = '';
	for (my $i = 0; defined(my $to = $p->{"routes/$i/to"}); $i++) {
		my ($via, $metric) = @$p{"routes/$i/via", "routes/$i/metric"};
		$routes .= "[Route]\n";
		$routes .= "Destination=$to\n" unless $to =~ m{^(?:default|0\.0\.0\.0/0|::/0)$};
		$routes .= "Gateway=$via\n" if $via;
		$routes .= "Metric=$metric\n" if $metric;
	}
	# The server may know this machine by its address only, never by an identifier that the installed system made up.
	my $id = $dhcp eq 'no' ? '' : "[DHCPv4]\nClientIdentifier=mac\n";
	return "[Match]\n$match" . ($section{Link} && "[Link]\n$section{Link}") . "[Network]\n$section{Network}$routes$id";
}

1;
