old --yes 1.67 s 0.98+0.59 cpu 36868 KB
