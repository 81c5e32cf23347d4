# Answers HTTP: asks `counter`, by that name, for the number of the visit.
use strict;
use warnings;
use IO::Socket::INET;

my $server = IO::Socket::INET->new(LocalPort => 80, Listen => 64, ReuseAddr => 1) or die "listen: $!";
$| = 1;
print "listening on port 80\n";
while (1) {
    my $client = $server->accept or next;
    my $request = <$client> // '';
    while (defined(my $line = <$client>)) { last if $line =~ /^\r?\n$/; }
    my ($status, $body) = ('200 OK', "ok\n");
    unless ($request =~ m{^GET /healthz }) {
        my $counter = IO::Socket::INET->new(PeerAddr => 'counter', PeerPort => 7000, Timeout => 2);
        if ($counter) {
            print $counter "next\n";
            my $count = <$counter> // '?';
            chomp $count;
            $body = "$ENV{GREETING}: you are visitor $count\n";
        } else {
            ($status, $body) = ('503 Service Unavailable', "the counter does not answer: $@\n");
        }
    }
    print $client "HTTP/1.1 $status\r\nContent-Type: text/plain\r\nContent-Length: " . length($body)
        . "\r\nConnection: close\r\n\r\n$body";
}
