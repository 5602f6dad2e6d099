/*
 * peak PROGRAM ARGUMENT...: runs a program and prints the maximal resident size of the largest process of its tree, in kB,
 * to standard error (getrusage(2)). Small itself, since what it forks starts with its own peak.
 */
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	int status = 0;
	struct rusage usage;
	if (argc < 2)
		return 2;
	pid_t child = fork();
	if (child == 0) {
		execv(argv[1], argv + 1);
		_exit(127);
	}
	if (child < 0 || wait4(child, &status, 0, &usage) < 0)
		return 125;
	fprintf(stderr, "peak %ld\n", usage.ru_maxrss);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
