# Visits `web` once a second and writes what it said.
use strict;
use warnings;
use IO::Socket::INET;

$| = 1;
while (1) {
    my $web = IO::Socket::INET->new(PeerAddr => 'web', PeerPort => 80, Timeout => 2);
    if ($web) {
        print $web "GET / HTTP/1.0\r\nHost: web\r\n\r\n";
        my @answer = <$web>;
        print $answer[-1] // "no answer\n";
    } else {
        print "web does not answer: $@\n";
    }
    sleep 1;
}
