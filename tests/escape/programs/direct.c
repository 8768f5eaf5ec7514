/* A static program that knows no proxy: `direct ADDRESS PORT TEXT` connects, sends TEXT and shows what comes back. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

int main(int count, char **words)
{
    struct sockaddr_in to = {.sin_family = AF_INET};
    struct timeval patience = {.tv_sec = 5};
    char answer[4096];
    ssize_t size;
    int sock = socket(AF_INET, SOCK_STREAM, 0);

    if (count != 4 || sock < 0 || inet_pton(AF_INET, words[1], &to.sin_addr) != 1)
        return 2;
    to.sin_port = htons((unsigned short)atoi(words[2]));
    setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (connect(sock, (struct sockaddr *)&to, sizeof to) || write(sock, words[3], strlen(words[3])) < 0) {
        perror("direct");
        return 1;
    }
    while ((size = read(sock, answer, sizeof answer)) > 0)
        fwrite(answer, 1, (size_t)size, stdout);
    return size < 0;
}
